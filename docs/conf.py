"""Sphinx configuration."""

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
WITHOUT_SUBPAGES = "index guide cges clustering partitioner contributing changelog"
html_sidebars = {page: [] for page in WITHOUT_SUBPAGES.split()}
html_show_sourcelink = False


# What comes with every scikit-learn estimator refers to scikit-learn's own pages.
OF_SCIKIT_LEARN = {"get_metadata_routing", "get_params", "set_output", "set_params"}


def skip_member(app, what, name, member, skip, options):
    """Leave out what scikit-learn and skorch document themselves."""
    origin = (getattr(member, "__module__", None) or "").partition(".")[0]
    foreign = origin in ("sklearn", "skorch", "torch")
    request = name.startswith("set_") and name.endswith("_request")
    return skip or foreign or request or name in OF_SCIKIT_LEARN


def setup(app):
    """Connect the above."""
    app.connect("autodoc-skip-member", skip_member)
