"""The site: a page for every public name, to which the HTML of estimators links."""

import importlib.util
import re
from pathlib import Path

import pytest
import sklearn
from rooms import rooms
from sklearn.base import BaseEstimator

import sklearn_structreg
from sklearn_structreg import CGESClassifier, StrengthSearchCV, StructuredClassifier
from sklearn_structreg.core.site import SITE

DOCS = Path(__file__).parents[1] / "docs"
CLASSES = [
    each
    for room in rooms().values()
    for name in room.__all__
    if isinstance(each := getattr(room, name), type) and issubclass(each, BaseEstimator)
]


@pytest.fixture(scope="module")
def pages():
    """The names on the API page, which are those of the pages behind it."""
    file = importlib.util.spec_from_file_location("api_page", DOCS / "api_page.py")
    module = importlib.util.module_from_spec(file)
    file.loader.exec_module(module)
    return re.findall(r"^    ~(\S+)$", module.api_page(), flags=re.M)


def test_every_public_name_is_on_the_api_page_once(pages):
    public = [name for room in rooms().values() for name in room.__all__]
    assert sorted(page.rpartition(".")[2] for page in pages) == sorted(public)
    short = {f"sklearn_structreg.{n}" for n in sklearn_structreg.__all__}
    assert {page for page in pages if page.count(".") == 1} == short - {
        "sklearn_structreg.__version__"
    }


def test_summaries_are_one_sentence_that_is_not_cut():
    """The API page ends a summary at the first full stop before a space."""
    for room in rooms().values():
        for name in room.__all__:
            summary = getattr(room, name).__doc__.strip().split("\n\n")[0]
            stops = re.findall(r"(?<! al)\.(?=\s|$)", summary)
            assert len(stops) == 1, f"{name}: {summary}"
            assert summary.endswith("."), f"{name}: {summary}"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_html_of_an_estimator_links_to_its_page(cls, pages):
    estimator = object.__new__(cls)  # the link is that of the class
    link = estimator._get_doc_link()
    page = link.removeprefix(f"{SITE}api/generated/").removesuffix(".html")
    assert page in pages
    assert page.rpartition(".")[2] == cls.__name__


def test_links_stand_in_the_html_and_not_in_that_of_other_classes():
    class Own(CGESClassifier):
        """A user's."""

    search = StrengthSearchCV(CGESClassifier(), {"alpha": [1]})
    with sklearn.config_context(display="diagram"):
        for estimator, names in (
            (StructuredClassifier(), ["StructuredClassifier"]),
            (search, ["StrengthSearchCV", "CGESClassifier"]),
        ):
            for name in names:
                link = f'href="{SITE}api/generated/sklearn_structreg.{name}.html'
                assert link in estimator._repr_html_()
        assert SITE not in Own()._repr_html_()
