"""Sphinx configuration."""

from pathlib import Path

import sklearn_structreg

project = "sklearn_structreg"
author = "The sklearn_structreg developers"
copyright = f"2026, {author}"
version = release = sklearn_structreg.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["auto_examples/*.ipynb", "auto_examples/*.py"]

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
    "abort_on_example_error": True,
    "doc_module": ("sklearn_structreg",),
    "reference_url": {"sklearn_structreg": None},
    "show_memory": False,
    "min_reported_time": 5,
}

html_theme = "pydata_sphinx_theme"
html_title = "sklearn_structreg"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {  # only the API has pages below it
    page.stem: [] for page in Path(__file__).parent.glob("*.rst") if page.stem != "api"
}
html_show_sourcelink = False


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


def setup(app):
    """Connect the above."""
    app.connect("autodoc-skip-member", skip_member)
