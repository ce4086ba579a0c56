"""A regularizer in a skorch net of one's own, whatever its parameter groups."""

import copy
import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn

from sklearn_structreg.core import (
    Regularizer,
    RegularizerCallback,
    StructuredClassifier,
    make_mlp,
)
from sklearn_structreg.core.parameters import component, parameter


class Counting(Callback):
    def __init__(self):
        self.epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


@component
class Shift(Regularizer):
    """Adds a layer with a parameter in a group of its own; notes rates and sums."""

    by: float = parameter(1.0, [float], "float", "Penalty.")

    def attach(self, module, sample):
        self.shape_, self.rates_ = tuple(sample.shape), []
        self.counting_ = Counting()
        return nn.Sequential(module, nn.PReLU(init=torch.rand(()).item()))

    def param_groups(self, module):
        return [{"params": [module[1].weight], "lr_factor": 3.0}]

    def penalty(self, module):
        return self.by * module[0][2].bias.sum()

    def after_step(self, module, optimizer):
        self.rates_.append([group["lr"] for group in optimizer.param_groups])

    def callbacks(self):
        return [("counting", self.counting_)]


def make(callbacks, **params):
    params = {"lr": 0.1, "max_epochs": 2, "batch_size": 60, "verbose": 0} | params
    params.setdefault("module", make_mlp(4, 3))
    return NeuralNetClassifier(
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        callbacks=callbacks,
        **params,
    )


def fitted(blobs, regularizer, **params):
    X, y = blobs[0].astype(np.float32), blobs[1]
    torch.manual_seed(0)
    return make([("own", RegularizerCallback(regularizer))], **params).fit(X, y)


def test_every_hook_acts(blobs):
    net = fitted(blobs, Shift(), optimizer__param_groups=[("*bias", {"lr": 0.01})])
    regularizer = dict(net.callbacks_)["own"].regularizer_
    assert regularizer.shape_ == (60, 4)
    assert regularizer.counting_.epochs == 2
    assert len(regularizer.rates_) == 2 * 2
    assert sorted(regularizer.rates_[0]) == pytest.approx([0.01, 0.1, 0.3])
    held = [p for group in net.optimizer_.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, net.module_.parameters()))
    assert not net.optimizer_._optimizer_step_post_hooks


@component
class Pull(Regularizer):
    """Pulls at the first layer by a penalty, and bounds the last one."""

    def penalty(self, module):
        return module[0].weight.square().sum()

    def after_step(self, module, optimizer):
        bound = optimizer.param_groups[0]["lr"]
        module[2].weight.detach().clamp_(-bound, bound)


def test_callback_and_estimator_are_the_textbook_loop(blobs):
    X, y = torch.from_numpy(blobs[0]).float(), torch.from_numpy(blobs[1])
    start = make_mlp(4, 3)
    params = {"learning_rate": 0.1, "momentum": 0.0, "batch_size": None}
    model = StructuredClassifier(start, regularizers=[Pull()], max_epochs=5, **params)
    model.fit(X, y)
    net = make(
        [RegularizerCallback(Pull())],
        module=copy.deepcopy(start),
        max_epochs=5,
        batch_size=-1,
    ).fit(X, y)
    textbook = copy.deepcopy(start)
    optimizer = torch.optim.SGD(textbook.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(textbook(X), y)
        (loss + textbook[0].weight.square().sum()).backward()
        optimizer.step()
        textbook[2].weight.detach().clamp_(-0.1, 0.1)
    for weights in zip(
        *(m.parameters() for m in (textbook, model.module_, net.module_)), strict=True
    ):
        for other in weights[1:]:
            torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-6)


def test_training_goes_on_after_a_pickle(blobs):
    X, y = blobs[0].astype(np.float32), blobs[1]
    net = fitted(blobs, Shift())
    loaded = pickle.loads(pickle.dumps(net))
    loaded.partial_fit(X, y)
    assert len(loaded.history) == 4
    held = [p for group in loaded.optimizer_.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in loaded.module_.parameters()}
    regularizer = dict(loaded.callbacks_)["own"].regularizer_
    assert len(regularizer.rates_) == 2 * 4  # attached once, followed twice


def test_dicts_of_inputs_and_regression(blobs):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 1)

        def forward(self, left, right):
            return self.body(torch.cat([left, right], dim=1))

    class Look(Regularizer):
        def attach(self, module, sample):
            self.keys_ = sorted(sample)
            return module

    X = {
        "left": blobs[0][:, :2].astype(np.float32),
        "right": blobs[0][:, 2:].astype(np.float32),
    }
    y = blobs[0][:, :1].astype(np.float32)
    net = NeuralNetRegressor(
        Two, callbacks=[("look", RegularizerCallback(Look()))], max_epochs=1, verbose=0
    ).fit(X, y)
    assert dict(net.callbacks_)["look"].regularizer_.keys_ == ["left", "right"]
