"""The API page: every public name once, by room and kind.

Rooms are found by their folders, so a new method needs no entry.
"""

from importlib import import_module
from pathlib import Path

from torch import nn

import sklearn_structreg
from sklearn_structreg.core import Regularizer
from sklearn_structreg.core.site import public_name

FIRST = ["core", "cges", "blockout", "dropcluster", "selfinformed"]
KINDS = [
    *("Estimators", "Regularizers", "Functions", "Displays"),
    *("Layers and networks", "Other classes"),
]


def kind_of(entry):
    """Name the section of the API page that an object belongs to."""
    if hasattr(entry, "fit"):
        return "Estimators"
    if not isinstance(entry, type):
        return "Functions"
    if issubclass(entry, Regularizer):
        return "Regularizers"
    if issubclass(entry, nn.Module):
        return "Layers and networks"
    return "Displays" if entry.__name__.endswith("Display") else "Other classes"


def heading(text, underline):
    """Return the lines of a heading."""
    return ["", text, underline * len(text), ""]


def api_page():
    """List the public names of all rooms; estimators by their shortest name."""
    package = Path(sklearn_structreg.__file__).parent
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    lines = heading("API", "=")
    for room in [*FIRST, *sorted(rooms - {*FIRST})]:
        module = import_module(f"sklearn_structreg.{room}")
        lines += [*heading(room, "-"), module.__doc__.splitlines()[0], ""]
        entries = [getattr(module, name) for name in module.__all__]
        for kind in KINDS:
            names = [public_name(each) for each in entries if kind_of(each) == kind]
            if names:
                lines += [f".. rubric:: {kind}", "", ".. autosummary::"]
                lines += ["    :toctree:", "    :nosignatures:", ""]
            lines += [*(f"    ~{name}" for name in names), ""]
    return "\n".join(lines)
