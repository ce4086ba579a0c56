"""Predictions that are means over draws of the masks."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from sklearn_structreg.baselines import (
    DropBlock,
    Dropout,
    SpatialDropout,
    StochasticDepth,
)
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.dropcluster import DropCluster

FAST = {"max_epochs": 2, "random_state": 0, "hidden_layer_sizes": (16,)}


class Residual(nn.Module):
    """A network with a residual branch, a batch normalization and dropout."""

    def __init__(self, n_outputs=10, rate=0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(rate)
        self.fc = nn.Linear(512, n_outputs)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        return self.fc(self.drop((x + self.branch(x)).flatten(1)))


@pytest.fixture(scope="module")
def images(digits):
    return digits[0][:200].reshape(-1, 1, 8, 8), digits[1][:200]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "regularizer",
    [
        DropCluster(0.3, start_epoch=0),
        DropCluster(0.3, start_epoch=0, mask_per="sample"),
        DropBlock(0.3),
        SpatialDropout(0.3),
        Dropout(0.3),
        StochasticDepth(0.5),
        Blockout(3),
        None,
    ],
    ids=str,
)
def test_every_layer_that_draws_does(images, regularizer):
    X, y = images
    net = Residual(rate=0.0 if regularizer else 0.3)
    model = StructuredClassifier(
        net, regularizers=[regularizer] if regularizer else None, **FAST
    ).fit(X, y)
    before = {name: value.clone() for name, value in model.module_.state_dict().items()}
    state = torch.get_rng_state()
    once, mean = model.predict_proba(X), model.predict_proba(X, n_draws=20)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_allclose(mean.sum(1), 1)
    assert np.abs(mean - once).max() > 1e-3
    assert np.abs(mean - once).mean() < 0.1
    np.testing.assert_array_equal(model.predict_proba(X, n_draws=20), mean)
    np.testing.assert_array_equal(model.predict_proba(X), once)
    after = model.module_.state_dict()  # no running statistics have moved
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_mean_is_that_of_the_softmax_over_masks(images):
    # By hand: all masks of the eight hidden units, each as likely as any other.
    X, y = images
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    settings = FAST | {"max_epochs": 30, "learning_rate": 0.1}
    model = StructuredClassifier(module, regularizers=[Dropout(0.5)], **settings)
    net = model.fit(X, y).module_
    with torch.no_grad():
        hidden = net[2](net[1](torch.tensor(X[:5], dtype=torch.float32).flatten(1)))
        masks = torch.cartesian_prod(*[torch.tensor([0.0, 2.0])] * 8)
        logits = [net[3].weight @ (hidden * m).T + net[3].bias[:, None] for m in masks]
    expected = np.mean([softmax(each.T.numpy(), axis=1) for each in logits], axis=0)
    found = model.predict_proba(X[:5], n_draws=4000)
    np.testing.assert_allclose(found, expected, atol=5 * 0.5 / 4000**0.5)
    assert np.abs(found - model.predict_proba(X[:5])).max() > 0.02


def test_all_batches_meet_the_same_masks_and_plain_nets_draw_none(images, monkeypatch):
    X, y = images
    model = StructuredClassifier(regularizers=[DropCluster(start_epoch=0)], **FAST)
    whole = model.fit(X, y).predict_proba(X, n_draws=3)
    monkeypatch.setattr("sklearn_structreg.core.estimator.PREDICTION_ROWS", 64)
    np.testing.assert_allclose(model.predict_proba(X, n_draws=3), whole, atol=1e-5)
    plain = StructuredClassifier(**FAST).fit(X, y)
    once = plain.predict_proba(X)
    np.testing.assert_allclose(plain.predict_proba(X, n_draws=3), once, atol=1e-12)
    with pytest.raises(ValueError, match="n_draws=-1 must be an integer of at least 0"):
        plain.predict_proba(X, n_draws=-1)
