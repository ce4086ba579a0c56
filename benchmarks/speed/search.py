"""Time a search over strengths beside the same one by one.

`StrengthSearchCV` against `GridSearchCV` over the same estimator of this package, and
over a bare skorch net of the same network, optimizer, batches and epochs without any
regularizer; 10 strengths on 5 folds, without the refit. Cases:

- digits: 1,797 x 64, one hidden layer of 100
- rows: 20,000 x 64 made rows, the same network
- pixels: 2,000 x 784 made rows, a hidden layer of 256: hardly fits in a cache
- maps: digits as images, two convolutions
- folds: digits in groups of unequal size, so that no two folds have the same batches
- blockout: digits, ten first probabilities of Blockout

And other networks that are trained as one, beside trainings one by one:

- members: `n_members=8` beside one network, on digits; so are members of CGES
- seeds: a search over ten seeds, on digits
- folds' strengths: `CGESClassifierCV` on digits, and on a wide made table, 100 x 2,000

Processor seconds of one thread, medians over repeats in turns. Run
``python -m benchmarks.speed.search`` (some ten minutes; ``--only digits`` and
``--repeats 1`` for less). Writes benchmarks/results/search.json, docs/search.inc and
docs/search_together.inc.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import GridSearchCV, GroupKFold
from skorch import NeuralNetClassifier

from benchmarks.value.section import write_page
from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESClassifierCV,
    StrengthSearchCV,
)
from sklearn_structreg.core import (
    StructuredClassifier,
    make_convnet,
    make_mlp,
    together,
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "search.json"
PAGE = ROOT / "docs" / "search.inc"
STRENGTHS = {"alpha": list(np.geomspace(0.03, 3.0, 10))}
AIMS = {"digits": (5.0, 10.0), "rows": (2.5, 5.0)}
SKORCH = "skorch's net"
TOGETHER = ROOT / "docs" / "search_together.inc"


class Case(NamedTuple):
    """Data, the network, and its training."""

    X: np.ndarray
    y: np.ndarray
    network: Callable[[], torch.nn.Module]
    params: dict[str, Any]
    groups: np.ndarray | None = None
    kind: type = CGESClassifier
    grid: dict[str, list[float]] = STRENGTHS


def make_cases() -> dict[str, Callable[[], Case]]:
    """Return the cases by name, not yet made."""
    return {
        "digits": digits,
        "rows": partial(made, 20_000, 64, (100,), max_epochs=5),
        "pixels": partial(made, 2_000, 784, (256,), max_epochs=5),
        "maps": maps,
        "folds": folds,
        "blockout": blockout,
    }


def digits() -> Case:
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    return Case(X, y, partial(make_mlp, 64, 10), {"max_epochs": 20})


def folds() -> Case:
    case = digits()
    rng = np.random.default_rng(0)
    sizes = [320, 340, 360, 380, 397]
    groups = rng.permutation(np.repeat(np.arange(5), sizes))
    return case._replace(groups=groups)


def blockout() -> Case:
    grid = {"init_probability": list(np.linspace(0.5, 0.95, 10))}
    return digits()._replace(kind=BlockoutClassifier, grid=grid)


def maps() -> Case:
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    network = partial(make_convnet, (1, 8, 8), 10, n_channels=(8, 16))
    return Case(X, y, network, {"max_epochs": 5})


def made(n: int, d: int, hidden: tuple[int, ...], max_epochs: int) -> Case:
    X, y = make_classification(
        n, d, n_informative=20, n_classes=10, class_sep=2.0, random_state=0
    )
    network = partial(make_mlp, d, 10, hidden)
    return Case(X.astype(np.float32), y, network, {"max_epochs": max_epochs})


def searches(case: Case) -> dict[str, Any]:
    """Return the searches to time, by name."""
    torch.manual_seed(0)
    net = case.kind(case.network(), random_state=0, **case.params)
    plain = NeuralNetClassifier(
        case.network(),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=128,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        **case.params,
    )
    cv: Any = 5 if case.groups is None else GroupKFold(5)
    how = {"cv": cv, "refit": False}
    return {
        "stacked": StrengthSearchCV(net, case.grid, **how),
        "one by one": GridSearchCV(net, case.grid, **how),
        SKORCH: GridSearchCV(plain, {"lr": [1e-3] * len(STRENGTHS["alpha"])}, **how),
    }


def run(case: Case, repeats: int) -> dict[str, Any]:
    """Time the searches in turns; return medians, and how far scores are apart."""
    seconds: dict[str, list[float]] = {}
    scores = {}
    for _ in range(repeats):
        for name, search in searches(case).items():
            start = time.process_time()
            search.fit(case.X, case.y, groups=case.groups)
            seconds.setdefault(name, []).append(time.process_time() - start)
            scores[name] = search.cv_results_["mean_test_score"]
    apart = np.abs(scores["stacked"] - scores["one by one"]).max()
    return {
        "seconds": {k: median(v) for k, v in seconds.items()},
        "apart": float(apart),
    }


class Pair(NamedTuple):
    """Something that is trained as one, another training, and the aim of a ratio."""

    label: str
    as_one: Callable[[], Any]
    other: Callable[[], Any]
    aim: str


def make_pairs() -> dict[str, Pair]:
    """Return the other trainings by name."""
    X, y, *_ = digits()
    wide = made(100, 2_000, (100,), 1)
    plain, sparse = StructuredClassifier(random_state=0), CGESClassifier(random_state=0)
    short = clone(sparse).set_params(max_epochs=20)
    seeds = {"random_state": list(range(10))}
    how = {"cv": 5, "refit": False}
    cv, cv_wide = (CGESClassifierCV(max_epochs=n, random_state=0) for n in (20, 100))

    def eight(net: Any) -> Any:
        return clone(net).set_params(n_members=8)

    def one_by_one(net: Any, X: np.ndarray, y: np.ndarray) -> None:
        with patch.object(together, "FEWEST", np.inf):
            net.fit(X, y)

    return {
        "members": Pair(
            "8 members / one network",
            partial(eight(plain).fit, X, y),
            partial(plain.fit, X, y),
            "at most 2",
        ),
        "CGES members": Pair(
            "8 members / one network, CGES",
            partial(eight(sparse).fit, X, y),
            partial(sparse.fit, X, y),
            "at most 2",
        ),
        "seeds": Pair(
            "10 seeds x 5 folds / one by one",
            partial(StrengthSearchCV(short, seeds, **how).fit, X, y),
            partial(GridSearchCV(short, seeds, **how).fit, X, y),
            "",
        ),
        "cv": Pair(
            "CGESClassifierCV / one by one",
            partial(cv.fit, X, y),
            partial(one_by_one, cv, X, y),
            "",
        ),
        "wide cv": Pair(
            "the same on 100 x 2,000 / one by one",
            partial(cv_wide.fit, wide.X, wide.y),
            partial(one_by_one, cv_wide, wide.X, wide.y),
            "",
        ),
    }


def run_pair(pair: Pair, repeats: int) -> dict[str, float]:
    """Time both in turns; return medians."""
    seconds: dict[str, list[float]] = {"as one": [], "other": []}
    for _ in range(repeats):
        for name, fit in zip(seconds, (pair.as_one, pair.other), strict=True):
            start = time.process_time()
            fit()
            seconds[name].append(time.process_time() - start)
    return {name: median(each) for name, each in seconds.items()}


def report_pairs(results: dict[str, dict[str, float]]) -> str:
    """Return the table of ratios."""
    lines = [f"{'processor time':40}{'as one':>9}{'other':>9}{'ratio':>8}   aim"]
    pairs = make_pairs()
    for name, each in results.items():
        one, other = each["as one"], each["other"]
        lines.append(
            f"{pairs[name].label:40}{one:7.1f} s{other:7.1f} s{one / other:8.2f}   "
            f"{pairs[name].aim}".rstrip()
        )
    return "\n".join(lines)


def report(results: dict[str, Any]) -> str:
    """Return the table of speed-ups."""
    lines = [
        f"{'10 strengths x 5 folds':24}{'stacked':>9}{'one by one':>12}{SKORCH:>14}"
        f"{'scores apart':>14}   aims"
    ]
    for name, result in results.items():
        seconds = result["seconds"]
        own = seconds["stacked"]
        ratios = [seconds[other] / own for other in ("one by one", SKORCH)]
        aims = " and ".join(f"{aim:g} x" for aim in AIMS.get(name, (0.95,)))
        lines.append(
            f"{name:24}{own:7.1f} s{ratios[0]:10.2f} x{ratios[1]:12.2f} x"
            f"{result['apart']:14.4f}   {aims}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=None, help="names of cases")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, make in make_cases().items():
        if given.only is None or name in given.only:
            known[name] = run(make(), given.repeats)
            print(report({name: known[name]}), flush=True)
    for name, pair in make_pairs().items():
        if given.only is None or name in given.only:
            known[name] = run_pair(pair, given.repeats)
            print(report_pairs({name: known[name]}), flush=True)
    results = {name: known[name] for name in make_cases() if name in known}
    pairs = {name: known[name] for name in make_pairs() if name in known}
    RESULTS.write_text(json.dumps(results | pairs, indent=1) + "\n")
    write_page(PAGE, report(results))
    write_page(TOGETHER, report_pairs(pairs))


if __name__ == "__main__":
    main()
