"""Bad input gets one clear sentence, before any work is lost: compaction."""

import functools

import numpy as np
import pytest
import torch
from bad_input import Case, check, every
from torch import nn

from sklearn_structreg.cges import CGESClassifier
from sklearn_structreg.compaction import compact, size_report
from sklearn_structreg.core import count_multiply_adds, make_mlp

X = torch.zeros(2, 6)
NET = make_mlp(6, 3, (4,))
LAZY = nn.Sequential(nn.LazyLinear(3))
COMPILED = torch.compile(make_mlp(6, 3, (4,)), backend="eager")


class Raising(nn.Module):
    def forward(self, x):
        raise KeyError("a")


CALLS = [
    *(
        Case(f"{f.__name__}: {name}", words, functools.partial(f, *args), error=error)
        for f in (compact, size_report, count_multiply_adds)
        for name, args, words, error in [
            ("no module", ("net", X), "module must be a torch.nn.Module, not a str", TypeError),
            ("None", (None, X), "module must be a torch.nn.Module", TypeError),
            ("class", (nn.ReLU, X), "module must be a torch.nn.Module", TypeError),
            ("estimator", (CGESClassifier(), X), "pass its module_", TypeError),
            ("array", (NET, X.numpy()), "at least one sample", ValueError),
            ("tuple", (NET, (X,)), "at least one sample", ValueError),
            ("no rows", (NET, X[:0]), "at least one sample", ValueError),
            ("None as sample", (NET, None), "at least one sample", ValueError),
            ("a number", (NET, torch.tensor(1.0)), "at least one sample|does not take", ValueError),
            ("other width", (NET, X[:, :5]), r"does not take samples of shape \(2, 5\)", ValueError),
            ("integers", (NET, X.long()), "does not take samples|type torch.int64", ValueError),
            ("other precision", (NET, X.double()), "does not take samples|type torch.float64", ValueError),
            ("complex", (NET, X + 0j), "does not take samples|complex", ValueError),
            ("meta", (NET, X.to("meta")), "meta", ValueError),
            ("sparse", (NET, X.to_sparse()), "sparse|dense", ValueError),
            ("list of layers", (nn.ModuleList([nn.Linear(6, 3)]), X), "forward|ModuleList", ValueError),
            ("module without forward", (nn.Module(), X), "forward|does not take", ValueError),
            ("module that raises", (Raising(), X), "KeyError|does not take|cannot be followed", ValueError),
        ]
    ),
    *(
        Case(f"{f.__name__}: {name}", words, functools.partial(f, *args, **params))
        for f in (compact, size_report)
        for name, args, params, words in [
            ("unsupported", (NET, X), {"unsupported": "skip"}, "unsupported='skip' must be"),
            ("unsupported None", (NET, X), {"unsupported": None}, "unsupported=None must be"),
            ("lazy", (LAZY, X), {}, "has no shape yet"),
            ("meta network", (make_mlp(6, 3).to("meta"), X), {}, "meta|device"),
        ]
    ),
    *(
        Case(f"n_repeats={n!r}", f"n_repeats={n!r} must be", functools.partial(size_report, NET, X, n_repeats=n))
        for n in (-1, 2.5, True, "many", None, np.nan)
    ),
    Case("compacted of other layers", "other layers than module", functools.partial(size_report, NET, X, compacted=NET[:2])),
    Case("compacted of text", "compacted", functools.partial(size_report, NET, X, compacted="net"), error=TypeError),
]  # fmt: skip


@every(CALLS)
def test_calls(case):
    check(case)


def test_a_compiled_network_is_compacted_as_it_was_before():
    small = compact(COMPILED, X)
    torch.testing.assert_close(small(X), COMPILED(X))
    assert size_report(COMPILED, X, n_repeats=0).n_parameters == 43
    assert count_multiply_adds(COMPILED, X) == 36


@pytest.mark.parametrize(
    "sample", [torch.zeros(1, 6), torch.full((2, 6), float("nan"))]
)
def test_samples_whose_values_do_not_matter(sample):
    assert count_multiply_adds(NET, sample) == 36
