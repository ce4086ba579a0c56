"""The net and the hooks of a regularizer: order, groups, loss, persistence."""

import copy
import pickle

import pytest
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional

from sklearn_structreg.core import Regularizer, StructuredClassifier, make_mlp
from sklearn_structreg.core.device import resolve_device
from sklearn_structreg.core.losses import WeightedLoss
from sklearn_structreg.core.randomness import derive_seed, seeded
from sklearn_structreg.core.task import Task

IGNORE = "ignore::sklearn.exceptions.ConvergenceWarning"
FAST = {"max_epochs": 2, "batch_size": 30, "random_state": 0}


class Diary(Callback):
    def __init__(self, entries):
        self.entries = entries

    def on_epoch_begin(self, net, **kwargs):
        self.entries.append("epoch")

    def on_epoch_end(self, net, **kwargs):
        self.entries.append("end")


class Recorder(Regularizer):
    """Writes down every hook, and gives the last layer's bias its own group."""

    def attach(self, module, sample):
        self.entries_ = [("attach", tuple(sample.shape))]
        return nn.Sequential(*module, nn.Identity())

    def param_groups(self, module):
        return [{"params": [module[2].bias], "weight_decay": 0.0, "lr_factor": 20.0}]

    def callbacks(self):
        return [("diary", Diary(self.entries_))]

    def penalty(self, module):
        self.entries_.append("penalty")

    def after_step(self, module, optimizer):
        rates = [group["lr"] for group in optimizer.param_groups]
        self.entries_.append(("step", *rates))

    def before_validation(self, module):
        self.entries_.append("settle")


def test_what_a_regularizer_draws_comes_from_the_seed(blobs):
    drawn = []

    class Drawing(Regularizer):
        def attach(self, module, sample):
            drawn.append(torch.rand(3))
            return module

    state = torch.get_rng_state()
    for seed in (0, 0, 1):
        model = StructuredClassifier(regularizers=[Drawing()], max_epochs=1)
        model.set_params(random_state=seed).fit(*blobs)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_hooks_come_in_order_with_the_rate_of_the_step(blobs):
    model = StructuredClassifier(
        regularizers=[Recorder()], lr_schedule="cosine", weight_decay=0.5, **FAST
    ).fit(*blobs)
    rates = [(0.05, 1.0), (0.025, 0.5)]
    steps = [["penalty", ("step", *map(pytest.approx, pair))] * 3 for pair in rates]
    epochs = [["epoch", *step, "settle", "end"] for step in steps]
    entries = model.regularizers_["recorder"].entries_
    assert entries == [("attach", (2, 4)), *epochs[0], *epochs[1]]
    common, special = model.net_.optimizer_.param_groups
    assert len(common["params"]) == 3
    assert common["weight_decay"] == 0.5
    assert special["weight_decay"] == 0.0
    assert special["params"][0] is model.module_[2].bias


def test_training_is_the_textbook_loop(blobs):
    X, y = blobs
    params = {"dtype": "float64", "momentum": 0.0, "standardize": False}
    model = StructuredClassifier(**params, **FAST).fit(X, y)
    with seeded(model.net_.seed, torch.device("cpu")):
        net = make_mlp(4, 3).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    for epoch in (1, 2):
        generator = torch.Generator().manual_seed(derive_seed(model.net_.seed, epoch))
        for rows in torch.randperm(90, generator=generator).split(30):
            optimizer.zero_grad()
            functional.cross_entropy(net(X[rows]), y[rows]).backward()
            optimizer.step()
    for ours, textbook in zip(
        model.module_.parameters(), net.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, textbook, rtol=1e-12, atol=1e-14)


def test_weighted_loss_by_hand():
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([1, 1])
    weight = torch.tensor([0.5, 1.5], dtype=torch.float64)
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -(0.5 * p[0, 1].log() + 1.5 * p[1, 1].log()) / 2
    torch.testing.assert_close(
        WeightedLoss(Task.CLASSES)(logits, target, weight), expected
    )


def test_training_goes_on_after_a_round_trip_as_if_uninterrupted(digits):
    X, y = digits
    net = nn.Sequential(nn.Linear(64, 20), nn.Dropout(0.3), nn.Linear(20, 10))
    for optimizer in ("sgd", "adam"):
        model = StructuredClassifier(net, optimizer=optimizer, random_state=0)
        model.partial_fit(X, y, classes=range(10))
        loaded, copied = pickle.loads(pickle.dumps(model)), copy.deepcopy(model)
        for other in (loaded, copied):
            other.partial_fit(X, y)
        model.partial_fit(X, y)
        for parts in zip(
            *(m.module_.parameters() for m in (model, loaded, copied)), strict=True
        ):
            assert torch.equal(parts[0], parts[1])
            assert torch.equal(parts[0], parts[2])


@pytest.mark.filterwarnings(IGNORE)
def test_history_has_the_mean_loss_over_rows(blobs):
    X, y = blobs
    model = StructuredClassifier(
        max_epochs=1, batch_size=40, learning_rate=1e-12, dtype="float64"
    ).fit(X, y)
    logits = torch.from_numpy(model.decision_function(X))
    loss = functional.cross_entropy(logits, torch.from_numpy(y))
    assert model.history_[-1, "train_loss"] == pytest.approx(float(loss), rel=1e-9)
    assert model.history_[-1, "train_batch_count"] == 3


def test_seeds_are_independent_and_restored():
    seeds = {derive_seed(seed, epoch) for seed in range(9) for epoch in range(9)}
    assert len(seeds) == 81
    state = torch.get_rng_state()
    with seeded(0, torch.device("cpu")):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_auto_device_takes_what_is_there():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_pickles_of_a_net_elsewhere_are_on_the_plain_cpu(digits):
    X, y = digits
    for optimizer in ("sgd", "adam"):
        model = StructuredClassifier(optimizer=optimizer, **FAST).fit(X, y)
        model.partial_fit(X, y)
        model.net_.device = "cpu:0"  # stands for another device on any machine
        loaded = pickle.loads(pickle.dumps(model))
        assert (model.net_.device, loaded.net_.device) == ("cpu:0", "cpu")
        parameters = set(loaded.module_.parameters())
        assert set(loaded.net_.optimizer_.state) == parameters
        loaded.partial_fit(X, y)
        model.partial_fit(X, y)
        for one, two in zip(
            loaded.module_.parameters(), model.module_.parameters(), strict=True
        ):
            assert torch.equal(one, two)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_pickles_are_cpu_tensors_and_train_on(digits):
    X, y = digits
    model = StructuredClassifier(device="cuda", **FAST).fit(X, y)
    assert all(p.is_cuda for p in model.module_.parameters())
    loaded = pickle.loads(pickle.dumps(model))
    assert not any(p.is_cuda for p in loaded.module_.parameters())
    assert all(p.is_cuda for p in model.module_.parameters())
    loaded.partial_fit(X, y)
    assert all(p.is_cuda for p in loaded.module_.parameters())
