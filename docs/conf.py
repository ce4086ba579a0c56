"""Sphinx configuration."""

import os
import re
import shutil
import sys
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

import sklearn_structreg
from sklearn_structreg.core.site import SITE

sys.path.insert(0, str(Path(__file__).parent))
from api_page import api_page  # beside this file
from markdown_pages import as_restructured_text

project = "sklearn_structreg"
author = "The sklearn_structreg developers"
copyright = f"2026, {author}"
version = release = sklearn_structreg.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["auto_examples/**.ipynb", "auto_examples/**.py"]
html_static_path = ["_static"]
html_css_files = ["narrow.css"]

# Names of other packages are links where the network may be used: on Read the Docs, and
# with ``-t online``. A build without it is the same but for these.
if "READTHEDOCS" in os.environ or tags.has("online"):  # noqa: F821
    intersphinx_mapping = {
        "sklearn": ("https://scikit-learn.org/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "skorch": ("https://skorch.readthedocs.io/en/stable/", None),
    }
    intersphinx_timeout = 10
else:
    nitpick_ignore_regex = [("py:.*", r"(sklearn|torch|numpy|skorch)\..*")]
nitpicky = True  # every other reference leads somewhere
linkcheck_timeout = 10
linkcheck_anchors = False  # GitHub and scripts make them in the browser

templates_path = ["_templates"]
autosummary_generate = True
autodoc_default_options = {"members": True, "inherited-members": True}
autodoc_typehints = "none"  # numpydoc's sections say it in words
numpydoc_show_class_members = False  # autodoc lists them already
add_module_names = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/(plot_|quickstart)",
    "within_subsection_order": "gallery_order.ReadingOrder",
    "abort_on_example_error": True,
    "doc_module": ("sklearn_structreg",),
    "reference_url": {"sklearn_structreg": None},
    "show_memory": False,
    "write_computation_times": False,
    "capture_repr": ("_repr_html_",),  # tables, but not the names of objects
    "min_reported_time": 5,
}

html_theme = "pydata_sphinx_theme"
html_title = "sklearn_structreg"
html_baseurl = SITE
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
WHOLE = ("index", "value", "results", "contributing", "changelog")
html_sidebars = {page: [] for page in WHOLE}
html_show_sourcelink = False


page = Path(__file__).parent / "api" / "generated" / "index.rst"
shutil.rmtree(page.parent, ignore_errors=True)  # pages of names that are gone
page.parent.mkdir(parents=True)
page.write_text(api_page(), encoding="utf-8")
names = re.findall(r"^    ~(\S+)$", page.read_text("utf-8"), flags=re.M)
PAGES = {name.rpartition(".")[2]: name for name in names}


# What comes with every scikit-learn estimator refers to scikit-learn's own pages.
OF_SCIKIT_LEARN = {"get_metadata_routing", "get_params", "set_output", "set_params"}
OF_TORCH = {"T_destination", "call_super_init", "dump_patches", "training"}


def skip_member(app, what, name, member, skip, options):
    """Leave out what scikit-learn, skorch and torch document themselves."""
    origin = (getattr(member, "__module__", None) or "").partition(".")[0]
    foreign = origin in ("sklearn", "skorch", "torch")
    request = name.startswith("set_") and name.endswith("_request")
    inherited = name in OF_SCIKIT_LEARN | OF_TORCH
    return skip or foreign or request or inherited


def public_reference(app, env, node, contnode):
    """Find a public name, of which there is one in all rooms, by its last part."""
    target = node.get("reftarget", "")
    place, _, name = target.rpartition(".")
    if (place and not place.startswith("sklearn_structreg")) or name not in PAGES:
        return None
    found = env.get_domain("py").resolve_xref
    return found(env, node["refdoc"], app.builder, "obj", PAGES[name], node, contnode)


def add_formula(translator, node, as_block):
    text = node.astext().replace(r"\Big(", r"\left(").replace(r"\Big)", r"\right)")
    text = re.sub(r"(\\tilde \w)_", r"\1{}_", text)  # an index is not below the letter
    if r"\\" in text and r"\begin" not in text:  # several lines
        text = rf"\begin{{align*}}{text}\end{{align*}}"
    try:
        formula = tex2mathml(text, as_block)
    except MathError as error:
        logging.getLogger(__name__).warning("%s", error, location=node)
        formula = text
    tag = "div" if as_block else "span"
    translator.body.append(f'<{tag} class="formula">{formula}</{tag}>')
    raise SkipNode


def inline_formula(translator, node):
    add_formula(translator, node, as_block=False)


def displayed_formula(translator, node):
    add_formula(translator, node, as_block=True)


def read_markdown(app, docname, source):
    """Add to a page of the project the file of the repository that it stands for."""
    if docname in ("contributing", "changelog"):
        file = Path(__file__).parents[1] / f"{docname.upper()}.md"
        source[0] += "\n" + as_restructured_text(file.read_text("utf-8"))


def setup(app):
    """Connect the above; formulas are MathML, which browsers draw without a script."""
    app.connect("autodoc-skip-member", skip_member)
    app.connect("source-read", read_markdown)
    app.connect("missing-reference", public_reference)
    app.add_html_math_renderer(
        "mathml", (inline_formula, None), (displayed_formula, None)
    )
    app.config.html_math_renderer = "mathml"
