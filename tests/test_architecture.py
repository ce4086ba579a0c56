"""The rooms of the package: their public names, the floors inside, and a new method.

All rooms are found by their folders. `lint-imports` checks the imports between them.
"""

from collections import Counter
from pathlib import Path

import grimp
import pytest
from rooms import rooms

import sklearn_structreg

FOLDER = Path(sklearn_structreg.__file__).parent
FLOORS = [  # upwards
    "regularizer",
    "estimator estimators classifier regressor",
    "display",
]


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(
        "sklearn_structreg", exclude_type_checking_imports=True, cache_dir=None
    )


@pytest.fixture(params=rooms().values(), ids=rooms())
def room(request):
    return request.param


def test_public_names_are_few_and_each_is_in_one_room():
    names = Counter(name for room in rooms().values() for name in room.__all__)
    assert [name for name, n_rooms in names.items() if n_rooms > 1] == []
    assert len(names) <= 89
    assert set(sklearn_structreg.__all__) <= {*names, "__version__"}


def test_public_names_are_documented(room):
    assert [name for name in room.__all__ if not getattr(room, name).__doc__] == []


def test_files_import_only_from_their_floor_and_below(room, graph):
    """A regularizer reaches no estimator; only a display reaches displays."""

    def floor(module, default):
        name = module.removeprefix(f"{room.__name__}.").split(".")[0]
        return next((i for i, f in enumerate(FLOORS) if name in f.split()), default)

    highest = len(FLOORS) - 1
    for module in graph.find_descendants(room.__name__):
        allowed = floor(module, default=highest - 1)
        for imported in graph.find_upstream_modules(module):
            if imported.startswith(f"{room.__name__}."):
                assert floor(imported, default=0) <= allowed, f"{module} -> {imported}"


def test_a_fifth_method_is_one_file_and_its_public_name():
    own = FOLDER / "baselines" / "l2sp.py"
    source = own.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    named = [p for p in FOLDER.rglob("*.py") if "l2sp" in p.read_text("utf-8").lower()]
    assert sorted(named) == [FOLDER / "baselines" / "__init__.py", own]


def test_the_walk_through_shows_the_fifth_method_as_it_is():
    guide = Path(__file__).parents[1] / "CONTRIBUTING.md"
    source = (FOLDER / "baselines" / "l2sp.py").read_text(encoding="utf-8")
    assert f"```python\n{source}```" in guide.read_text(encoding="utf-8")
