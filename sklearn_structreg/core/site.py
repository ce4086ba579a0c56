"""The package's site, and the page on it that a class has."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["SITE", "OnSite", "public_name"]

SITE = "https://sklearn-structreg.readthedocs.io/en/stable/"
PACKAGE = __name__.partition(".")[0]


def public_name(thing: Any) -> str:
    """Return the shortest name that a class or function is public by, or "".

    Its page on the site is called so.
    """
    rooms = [n for n in [*sys.modules] if n.rpartition(".")[0] in ("", PACKAGE)]
    for room in sorted(name for name in rooms if name.startswith(PACKAGE)):
        module, name = sys.modules[room], thing.__name__
        if name in getattr(module, "__all__", ()) and getattr(module, name) is thing:
            return f"{room}.{name}"
    return ""


class OnSite:
    """Mixin: the HTML that stands for an estimator links to the page of its class."""

    _doc_link_module = PACKAGE
    _doc_link_template = SITE + "api/generated/{page}.html"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        return {"page": public_name(type(self))}

    def _get_doc_link(self) -> str:
        """Return the address; a class of a user's, or a private one, has none."""
        link: str = super()._get_doc_link()  # type: ignore[misc] # of BaseEstimator
        return link if public_name(type(self)) else ""
