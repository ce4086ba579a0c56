"""Bad input gets one clear sentence, before any work is lost: the baselines."""

import functools

import numpy as np
import pytest
import torch
from bad_input import Case, check, every, settings
from torch import nn

from sklearn_structreg.baselines import (
    L2SP,
    DropBlock,
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
    Dropout,
    SpatialDropout,
    StochasticDepth,
)
from sklearn_structreg.core import StructuredClassifier

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(20, 6))
Y = np.arange(20) % 3
RATES = [1.0, -0.1, np.nan, True, "half", None]
LAYERS = {1: DropBlock1d, 2: DropBlock2d, 3: DropBlock3d}


def fit(regularizer, x=X):
    model = StructuredClassifier(regularizers=[regularizer], max_epochs=1)
    return model.fit(x, Y)


IMAGES = X.reshape(20, 1, 2, 3)
REGULARIZERS = [
    *(
        case._replace(name=f"{kind.__name__} {case.name}")
        for kind in (Dropout, SpatialDropout, DropBlock, StochasticDepth)
        for case in settings({"drop_rate": RATES, "layers": [3, None]}, kind, fit)
    ),
    *settings({"block_size": [0, 2.5, True, "big", (2, 2)]}, DropBlock, fit),
    *settings({"alpha": [-1.0, np.nan, np.inf, True, "0.1"], "how": ["loss", 1]}, L2SP, fit),
    *(
        Case(f"{kind.__name__}: {name}", words, functools.partial(fit, x=IMAGES), kind(layers=layers))
        for kind in (Dropout, SpatialDropout, DropBlock, StochasticDepth)
        for name, layers, words in [
            ("no such layer", ["head"], "no layer named 'head'"),
            ("no such layer, text", "head", "no layer named 'head'|layers='head'"),
            ("no layers", [], "layers"),
        ]
    ),
    Case("SpatialDropout on rows", "drops whole channels, but the input has a single one", fit, SpatialDropout()),
    Case("StochasticDepth without branches", "residual|branch|layers", fit, StochasticDepth()),
    Case("DropBlock of a large block", "block_size=9", functools.partial(fit, x=IMAGES), DropBlock(block_size=9)),
]  # fmt: skip
BLOCKS = [
    *(
        Case(f"DropBlock{n}d: {name}", words, functools.partial(kind, *args))
        for n, kind in LAYERS.items()
        for name, args, words in [
            ("block 0", (0,), "block_size=0 must be a positive integer"),
            ("block float", (2.5,), "block_size=2.5 must be"),
            ("block True", (True,), "block_size=True must be"),
            ("block text", ("big",), "block_size='big' must be"),
            ("block None", (None,), "block_size=None must be"),
            ("blocks", ((1, 2, 3, 4),), "block_size=.* must be"),
            ("blocks of floats", ((1.5,) * n,), "block_size=.* must be"),
            ("rate 1", (5, 1.0), "drop_rate=1.0 must be"),
            ("rate NaN", (5, np.nan), "drop_rate=nan must be"),
            ("rate True", (5, True), "drop_rate=True must be"),
            ("rate text", (5, "half"), "drop_rate='half' must be"),
            ("rate None", (5, None), "drop_rate=None must be"),
        ]
    ),
    *(
        Case(f"DropBlock{n}d called on {name}", words, functools.partial(kind(2, 0.5), x))
        for n, kind in LAYERS.items()
        for name, x, words in [
            ("other axes", torch.zeros(2, 3, *[4] * (n % 3 + 1)), "came to a layer for"),
            ("small maps", torch.zeros(2, 3, *[1] * n), "does not fit into maps"),
        ]
    ),
]  # fmt: skip


@every(REGULARIZERS)
def test_regularizers(case):
    check(case)


@every(BLOCKS)
def test_layers(case):
    check(case)


def test_a_layer_in_a_network_that_sends_it_too_little():
    net = nn.Sequential(
        nn.Conv1d(1, 2, 6), DropBlock1d(3), nn.Flatten(), nn.Linear(2, 3)
    )
    with pytest.raises(ValueError, match="block_size=.* does not fit into maps"):
        StructuredClassifier(net, max_epochs=1).fit(X[:, None], Y)
