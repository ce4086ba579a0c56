"""The suite of benchmarks/value: fair, resumable, and a report of it."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression

from sklearn_structreg import CGESClassifier, StructuredClassifier

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="module")
def _benchmarks():
    """Make the benchmarks importable, after the package as it is installed."""
    sys.path.append(str(ROOT))
    yield
    sys.path.remove(str(ROOT))


@pytest.fixture
def data():
    from benchmarks.value.datasets import table

    X, y = make_blobs(60, centers=2, random_state=0)
    return table("blobs", "made", X, y, None)


@pytest.fixture
def contestants():
    from benchmarks.value.contestants import PLAIN, Contestant, sparse_figures

    def few(kind):
        return lambda **params: kind(max_epochs=2, **params)

    grid = [{"alpha": 0.1}, {"alpha": 1}]
    return [
        Contestant(PLAIN, few(StructuredClassifier)),
        Contestant("CGES", few(CGESClassifier), grid, figures=sparse_figures),
    ]


def test_every_tuned_contestant_has_as_many_different_settings():
    from benchmarks.value.contestants import CONTESTANTS, N_SETTINGS

    tuned = [contestant for contestant in CONTESTANTS if contestant.grid]
    assert len(tuned) > 10
    for contestant in tuned:
        settings = {json.dumps(setting) for setting in contestant.grid}
        assert len(contestant.grid) == len(settings) == N_SETTINGS, contestant.name
    for contestant in CONTESTANTS:
        assert contestant.default or contestant.grid, contestant.name
        if not contestant.is_missing:
            for setting in [{}] if contestant.default else contestant.grid:
                contestant.make(**setting, random_state=0)


def test_runs_are_resumed_and_reported(data, contestants, tmp_path):
    from benchmarks.value.accuracy import compete
    from benchmarks.value.report import write
    from benchmarks.value.runs import Runs

    file = tmp_path / "runs.jsonl"
    for seed in (0, 1):
        compete(data, seed, contestants, Runs(file))
    whole = file.read_text()
    lines = whole.splitlines()
    assert len(lines) == 2 * (1 + 2 + 1 + 1)  # plain; two settings, default, the best
    compete(data, 1, contestants, Runs(file))
    assert file.read_text() == whole
    file.write_text("\n".join(lines[:-1]) + "\n")  # stopped before the last run
    compete(data, 1, contestants, Runs(file))
    again, last = json.loads(file.read_text().splitlines()[-1]), json.loads(lines[-1])
    assert again | {"seconds": 0} == last | {"seconds": 0}

    written = write(Runs(file), tmp_path)
    assert {path.suffix for path in written} == {".inc", ".png"}
    text = "".join(p.read_text("utf-8") for p in written if p.suffix == ".inc")
    for part in ("plain net", "CGES, tuned", "blobs", "below plain net"):
        assert part in text
    partial = Runs(file)  # stopped before the plain net's turn
    partial.rows = [run for run in partial.rows if run["contestant"] == "CGES"]
    rules = write(partial, tmp_path)[-2].read_text("utf-8")
    assert "below plain net: 0 of 0 sets" in rules
    assert "nan" not in rules


SECTIONS = (
    "batch_norm",
    "learning_rate",
    "noise",
    "selection",
    "size",
    "targets",
    "wide",
)
PAGES = {name: name for name in SECTIONS} | {"pruning": "pruning_value"}


@pytest.mark.parametrize("section", PAGES)
def test_the_docs_have_the_table_of_the_runs(section, tmp_path):
    from benchmarks.value.runs import Runs
    from benchmarks.value.section import DOCS, RESULTS, write_page

    name = PAGES[section]
    runs = Runs(RESULTS / f"{name}.jsonl")
    assert runs.rows
    report = import_module(f"benchmarks.value.{section}").report
    write_page(tmp_path / "page.inc", report(runs))
    page = (tmp_path / "page.inc").read_text("utf-8")
    assert page == (DOCS / f"{name}.inc").read_text("utf-8")


def test_a_section_measures_only_missing_runs(tmp_path, monkeypatch, capsys):
    from benchmarks.value.section import run_section

    def measure(runs, options):
        for seed in options.seeds:
            for name in filter(options.wants, ("wine", "digits")):
                key = {"data": name, "shape": (2, 3), "seed": seed}
                runs.once(key, work, name)

    def work(name):
        asked.append(name)
        return {"accuracy": 1 / 3}

    def report(runs):
        return f"{runs.mean('accuracy', data='wine'):.6f} of {len(runs.rows)}"

    file = tmp_path / "runs.jsonl"
    for options, measured, table in (
        (["--small", "--only", "wine"], ["wine"], "0.333333 of 1"),
        (["--seeds", "2"], ["digits", "wine", "digits"], "0.333333 of 4"),
        ([], [], "0.333333 of 4"),
    ):
        asked = []
        monkeypatch.setattr(sys, "argv", ["section", *options, "--json", str(file)])
        run_section("no page", "Title.", measure, report, n_seeds=2)
        assert asked == measured
        assert capsys.readouterr().out == f"{table}\n"


def test_settings_are_chosen_without_the_test_rows(data, contestants, tmp_path):
    """Other test rows: the same validations, the same choice."""
    from dataclasses import replace

    from benchmarks.value.accuracy import compete
    from benchmarks.value.runs import Runs

    split = data.split(0)
    other = replace(split, X_test=split.X_test[::-1], y_test=1 - split.y_test)
    choices = []
    for number, found in enumerate((split, other)):
        runs = Runs(tmp_path / f"{number}.jsonl")
        compete(replace(data, split=lambda seed, s=found: s), 0, contestants, runs)
        tests = runs.select(contestant="CGES", part="test")
        assert len(tests) == 2
        valid = runs.select(contestant="CGES", part="validation")
        choices.append([tests[1]["setting"], *[run["accuracy"] for run in valid]])
    assert choices[0] == choices[1]


def test_a_failing_fit_counts_as_the_most_frequent_class(data):
    from benchmarks.value.accuracy import measure
    from benchmarks.value.contestants import Contestant

    split = data.split(0)
    failing = Contestant("failing", lambda **params: LogisticRegression(C=-1, **params))
    rows = (split.X_train, split.y_train), [(split.X_test, split.y_test)]
    run = measure(failing, {}, 0, *rows)
    assert "C" in run["error"]
    assert run["accuracy"] == pytest.approx(np.mean(split.y_test == 0), abs=1e-4)


def test_every_chart_of_the_docs_is_drawn_from_results_and_is_there(tmp_path):
    from benchmarks.figures import CHARTS, FOLDER

    pages = [path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.rst")]
    shown = {
        n for page in pages for n in re.findall(r"results/charts/(\w+)\.png", page)
    }
    assert shown == CHARTS.keys()
    assert {path.stem for path in FOLDER.glob("*.png")} == shown
    for name in ("pruning", "path_order"):  # dots, lines
        CHARTS[name](tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
