"""A size asked for: reached as compaction counts it, held, or refused."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_structreg.cges import CGES, CGESClassifier, CGESRegressor, targets
from sklearn_structreg.cges.path import cges_path
from sklearn_structreg.cges.targets import Channels
from sklearn_structreg.compaction import compact
from sklearn_structreg.core import (
    RegularizerCallback,
    count_multiply_adds,
    make_mlp,
)

FAST = {"max_epochs": 9, "hidden_layer_sizes": (30, 20), "random_state": 0}


def share_left(estimator):
    """Count the multiply-adds of the compacted network over those of the whole one."""
    sample = torch.zeros(1, *estimator.input_shape_)
    compacted = estimator.compact().module_
    whole = estimator.simplified_module()
    return count_multiply_adds(compacted, sample) / count_multiply_adds(whole, sample)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("target", [0.5, 0.2, 0.1])
@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_layer_sizes": (64, 64), "max_epochs": 24},
        {"image_shape": (1, 8, 8), "max_epochs": 9, "penalty": "group", "alpha": 0.3},
    ],
    ids=["perceptron", "convolutional"],
)
def test_the_multiply_adds_asked_for_are_left(digits, settings, target):
    X, X_test, y, y_test = train_test_split(*digits, random_state=0)
    model = CGESClassifier(target_multiply_adds=target, random_state=0, **settings)
    model.fit(X, y)
    assert abs(share_left(model) - target) <= 0.02
    assert model.regularizers_["cges"].reached_ == pytest.approx(share_left(model))
    assert model.score(X_test, y_test) > 0.93  # 0.97 and 0.98 with all of the network


@pytest.mark.parametrize("groups", ["feature", "filter"])
def test_a_penalty_that_alone_would_leave_less_is_eased(digits, groups):
    settings = {"penalty": "group", "alpha": 2.0, "groups": groups, **FAST}
    alone = CGESClassifier(**settings).fit(*digits)
    model = CGESClassifier(target_multiply_adds=0.5, **settings).fit(*digits)
    assert share_left(alone) < 0.3
    assert abs(share_left(model) - 0.5) <= 0.02
    assert model.score(*digits) > alone.score(*digits) + 0.1


class Residual(nn.Module):
    """Sums, a depthwise convolution, normalization, a frozen layer, and a flatten."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.hidden, self.head = nn.Linear(8 * 16, 24), nn.Linear(24, 10)
        self.tail = nn.Linear(10, 10).requires_grad_(False)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.b(self.a(x).relu())
        x = nn.functional.max_pool2d(self.depthwise(x).relu(), 2)
        return self.tail(self.head(self.hidden(x.flatten(1)).relu()))


@pytest.mark.parametrize("seed", range(5))
def test_channels_count_as_compaction_does(seed):
    module, sample = Residual().eval(), torch.zeros(1, 1, 8, 8)
    names = [n for n, p in module.named_parameters() if p.ndim > 1]
    channels = Channels.of(module, names, sample)
    assert channels.removable.sum() == 8 + 12 + 24
    assert channels.share(channels.removable | True) == 1
    share = np.random.default_rng(seed).uniform(0.05, 0.9)
    alive = channels.select(
        np.random.default_rng(seed).random(len(channels.removable)), share
    )
    for name, mask in channels.masks(alive, module).items():
        module.get_parameter(name).detach().masked_fill_(mask, 0.0)
    assert (channels.in_use(module) == alive).all()
    count = count_multiply_adds(compact(module, sample), sample)
    assert count == pytest.approx(channels.share(alive) * channels.total)
    assert share - 0.12 <= channels.share(alive) <= share


def fake_latencies(modules, batch, n_repeats):
    """Take a time for every layer, and one for every multiply-add."""
    return [1000.0 + count_multiply_adds(module, batch) for module in modules]


def test_the_latency_asked_for_is_reached(digits, monkeypatch):
    monkeypatch.setattr(targets, "measure_latencies", fake_latencies)
    model = CGESClassifier(target_latency=0.5, **FAST).fit(*digits)
    whole, part = fake_latencies(
        [net.simplified_module() for net in (model, model.compact())],
        torch.zeros(1, 64),
        1,
    )
    assert abs(part / whole - 0.5) <= 0.02
    assert model.regularizers_["cges"].reached_ == pytest.approx(part / whole)
    with pytest.raises(ValueError, match="target_latency=0.1 is below 0.289"):
        model.set_params(target_latency=0.1).fit(*digits)


def test_a_warm_start_holds_the_size_and_goes_on_to_a_smaller_one(digits):
    model = CGESClassifier(target_multiply_adds=0.5, warm_start=True, **FAST)
    model.fit(*digits)
    zeros, before = model.module_[2].weight == 0, weights(model.module_)
    model.fit(*digits)
    assert torch.equal(model.module_[2].weight == 0, zeros)
    assert not torch.equal(weights(model.module_), before)
    again = pickle.loads(pickle.dumps(model))
    for each in (model, again):
        each.partial_fit(*digits)
    assert torch.equal(model.module_[2].weight == 0, zeros)
    assert torch.equal(weights(model.module_), weights(again.module_))
    model.set_params(target_multiply_adds=0.2).fit(*digits)
    assert abs(share_left(model) - 0.2) <= 0.02
    assert bool((model.module_[2].weight[zeros.all(1)] == 0).all())
    model = model.compact()
    n_left = weights(model.module_).numel()
    model.fit(*digits)
    assert weights(model.compact().module_).numel() == n_left
    model.set_params(target_multiply_adds=None, alpha=0).fit(*digits)
    assert model.sparsity_ < 0.01


def test_calls_of_partial_fit_count_as_the_epochs(digits):
    model = CGESClassifier(target_multiply_adds=0.3, **FAST)
    for _ in range(9):
        model.partial_fit(*digits, classes=range(10))
    assert abs(share_left(model) - 0.3) <= 0.02


def test_early_stopping_waits_for_the_size(digits):
    X, y = digits[0][:300], np.random.default_rng(0).integers(0, 2, 300)  # noise
    model = CGESClassifier(
        target_multiply_adds=0.3, early_stopping=True, n_iter_no_change=2, **FAST
    )
    model.set_params(max_epochs=40).fit(X, y)
    assert 27 < model.n_iter_ < 40
    assert abs(share_left(model) - 0.3) <= 0.02


def test_a_regressor_reaches_it_without_a_penalty(digits):
    model = CGESRegressor(alpha=0, target_multiply_adds=0.3, **FAST).fit(*digits)
    assert abs(share_left(model) - 0.3) <= 0.02


def test_a_skorch_net_reaches_it(digits):
    net = NeuralNetClassifier(
        make_mlp(64, 10, (30, 20)),
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        max_epochs=9,
        verbose=0,
        callbacks=[RegularizerCallback(CGES(target_multiply_adds=0.3))],
    ).fit(digits[0].astype("float32"), digits[1])
    sample = torch.zeros(1, 64)
    left = count_multiply_adds(compact(net.module_, sample), sample)
    assert abs(left / count_multiply_adds(net.module_, sample) - 0.3) <= 0.02


class Branching(nn.Module):
    """Has no graph."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_multiply_adds": 0.01}, "=0.01 is below 0.0103.*ask for more"),
        ({"target_latency": 0.5}, "=0.5 and target_latency=0.5 cannot both"),
        ({"penalty": "l2"}, "which penalty='l2' leaves out; choose another"),
        ({"refit": 0}, "which refit=0 leaves out; set refit above 0"),
        ({"max_epochs": 1}, "max_epochs=1 with refit=0.333 leaves no epoch"),
        ({"target_multiply_adds": 1.5}, "must be a float in the range"),
        ({"module": Branching}, "cannot be followed by torch.fx"),
    ],
)
def test_a_target_out_of_reach_is_refused_before_training(blobs, settings, message):
    model = CGESClassifier(**{"target_multiply_adds": 0.5, **FAST, **settings})
    with pytest.raises(ValueError, match=message):
        model.fit(*blobs)
    assert not hasattr(model, "net_")


def test_a_path_of_strengths_has_no_target(blobs):
    model = CGESClassifier(target_multiply_adds=0.5, **FAST)
    with pytest.raises(ValueError, match="set target_multiply_adds=None"):
        cges_path(model, *blobs, *blobs, alphas=[0.1])
