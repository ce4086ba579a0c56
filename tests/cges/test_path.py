"""Warm-started paths of strengths, and what they report."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import cges_path, count_weight_multiply_adds
from sklearn_structreg.core import count_multiply_adds, make_convnet

ALPHAS = [0.3, 0.0, 0.05]


@pytest.fixture(scope="module")
def halves(digits):
    X, y = digits
    return X[::2], y[::2], X[1::2], y[1::2]


@pytest.fixture(scope="module")
def model():
    return CGESClassifier(max_epochs=8, random_state=0)


def test_each_network_goes_on_from_the_weaker_one(halves, model):
    X, y, X_test, y_test = halves
    path = cges_path(model, *halves, alphas=ALPHAS)
    np.testing.assert_array_equal(path.alphas, [0.0, 0.05, 0.3])
    by_hand = CGESClassifier(max_epochs=8, random_state=0, warm_start=True)
    for step, alpha in enumerate(path.alphas):
        by_hand.set_params(alpha=alpha).fit(X, y)
        fitted = path.estimators[step]
        assert fitted.alpha == alpha
        for one, two in zip(
            fitted.module_.parameters(), by_hand.module_.parameters(), strict=True
        ):
            assert torch.equal(one, two)
        assert path.accuracy[step] == by_hand.score(X_test, y_test)
        assert path.sparsity[step] == by_hand.sparsity_
        weights = [p for p in by_hand.module_.parameters() if p.ndim > 1]
        nonzero = sum(int((w != 0).sum()) for w in weights)
        assert path.multiply_adds[step] == pytest.approx(nonzero / 7400)
        assert path.parameters[step] == by_hand.n_nonzero_parameters_ / 7510
    assert not hasattr(model, "net_")
    assert (np.diff(path.sparsity) > 0).all()


def test_from_strong_to_weak_networks_stay_empty(halves, model):
    path = cges_path(model, *halves, alphas=[0.0, 3.0], order="decreasing")
    np.testing.assert_array_equal(path.alphas, [0.0, 3.0])
    assert [m.alpha for m in path.estimators] == [0.0, 3.0]
    assert (path.accuracy < 0.2).all()


@pytest.mark.parametrize("alphas", [[], [-1.0], [np.inf], [np.nan]])
def test_strengths_that_make_no_sense(halves, model, alphas):
    with pytest.raises(ValueError, match="must hold one strength or more"):
        cges_path(model, *halves, alphas=alphas)


def test_an_unknown_order(halves, model):
    with pytest.raises(ValueError, match="order='up' must be"):
        cges_path(model, *halves, alphas=[0.1], order="up")


# ---- multiply-adds -------------------------------------------------------------


def test_dense_counts_are_those_of_torchs_counter():
    net = make_convnet((3, 9, 8), 5, (7,))
    sample = torch.zeros(2, 3, 9, 8)
    names = [f"{i}.weight" for i in (0, 3, 7, 9)]
    total, nonzero = count_weight_multiply_adds(net, names, sample)
    assert total == nonzero == count_multiply_adds(net, sample)
    assert not any(layer._forward_hooks for layer in net.modules())


def test_counts_of_what_is_left_by_hand():
    conv = nn.Conv2d(2, 4, 3, stride=2, groups=2)
    net = nn.Sequential(conv, nn.Flatten(), nn.Linear(36, 5))
    with torch.no_grad():
        conv.weight[1] = 0  # nine weights, used at 3 x 3 places
        net[2].weight[:, :6] = 0
    sample = torch.zeros(1, 2, 7, 7)
    total, nonzero = count_weight_multiply_adds(net, ["0.weight", "2.weight"], sample)
    assert total == 36 * 9 + 180
    assert nonzero == 27 * 9 + 150
