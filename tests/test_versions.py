"""All files that name versions of other packages name the same ones."""

import re
import tomllib
from pathlib import Path

from packaging.version import Version

FOLDER = Path(__file__).parents[1]
IN_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def versions(file, pattern):
    """Return the versions by package that a pattern of lines finds."""
    found = re.findall(pattern, (FOLDER / file).read_text("utf-8"), re.MULTILINE)
    return {name: Version(version) for name, version in found}


def declared():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    pairs = (line.split(">=") for line in lines)
    return {name: Version(version) for name, version in pairs}


def test_min_has_the_lowest_declared_versions():
    tested = versions("constraints-min.txt", r"^([\w-]+)==(.*)")
    assert tested.items() >= declared().items()


def test_newest_has_the_torch_of_the_pinned_set():
    pinned = versions("constraints.txt", r"^(torch)==(.*)")
    assert versions("tox.ini", r"^deps = (torch)==(.*)") == pinned


def test_the_conda_recipe_has_the_declared_versions():
    recipe = versions("conda/meta.yaml", r"^ +- ([\w-]+) >=(.*)")
    for name, version in declared().items():
        if not name.startswith("onnx"):  # an extra that the recipe does not name
            assert recipe[IN_CONDA.get(name, name)] == version, name
