"""Fits in several threads: those in a row, bit for bit, and nothing global changed."""

import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import numpy as np
import pytest
import torch
from rooms import ESTIMATORS, REGULARIZERS
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sklearn_structreg.baselines.dropblock import DropBlock2d
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.core import Regularizer, StructuredClassifier, randomness
from sklearn_structreg.core.randomness import own_generator, seeded
from sklearn_structreg.dropcluster import DropCluster2d

N_FITS = 4
SMALL = {
    "max_epochs": 2,
    "batch_size": 32,
    "hidden_layer_sizes": (12,),
    "image_shape": (1, 8, 8),
}
MORE = {
    "DropCluster": {"start_epoch": 1},
    "IterativePruning": {"target_density": 0.3},
    "StochasticDepth": {"drop_rate": 0.5, "layers": ["0"]},
}
MORE |= {
    f"DropCluster{kind}": {"start_epoch": 1} for kind in ("Classifier", "Regressor")
}
IGNORE = "ignore::sklearn.exceptions.ConvergenceWarning"
pytestmark = pytest.mark.filterwarnings(IGNORE)


@pytest.fixture(scope="module")
def images(digits):
    X, y = digits
    return X[:128], y[:128]


@pytest.fixture(autouse=True)
def _switches_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def global_state():
    return (
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),  # noqa: NPY002 (the global one)
        random.getstate(),
    )


def assert_threads_change_nothing(make, data):
    """Compare fits of `make(seed)` in threads with fits in a row."""

    def fit(seed):
        model = make(seed).fit(*data)
        return [p.detach() for p in model.module_.parameters()]

    before = global_state()
    expected = [fit(seed) for seed in range(N_FITS)]
    assert global_state() == before
    barrier = Barrier(N_FITS)

    def fit_with_others(seed):
        barrier.wait()
        return fit(seed)

    with ThreadPoolExecutor(N_FITS) as threads:
        results = list(threads.map(fit_with_others, range(N_FITS)))
    assert global_state() == before
    for one, two in zip(results, expected, strict=True):
        assert all(map(torch.equal, one, two))
    assert not all(map(torch.equal, expected[0], expected[1]))


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
def test_every_estimator(images, kind):
    more = MORE.get(kind.__name__, {})
    assert_threads_change_nothing(
        lambda seed: kind(**SMALL, **more, random_state=seed), images
    )


@pytest.mark.parametrize("kind", REGULARIZERS, ids=lambda kind: kind.__name__)
def test_every_regularizer(images, kind):
    regularizer = kind(**MORE.get(kind.__name__, {}))
    assert_threads_change_nothing(
        lambda seed: StructuredClassifier(
            regularizers=[regularizer], random_state=seed, **SMALL
        ),
        images,
    )


class Noisy(nn.Module):
    """Draws in a forward of its own, with dropout behind activation checkpointing."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(64, 12), nn.Dropout(0.5), nn.ReLU())
        self.last = nn.Linear(12, 10)

    def forward(self, x):
        x = x.flatten(1)
        x = checkpoint(self.first, x + 0.1 * torch.rand_like(x), use_reentrant=False)
        return self.last(x)


def chain(*layers):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), *layers, nn.ReLU(), nn.Linear(12, 10)
    )


class Noise(Regularizer):
    """Draws in every hook."""

    def penalty(self, module):
        return torch.rand(()) * next(module.parameters()).square().sum()

    def after_step(self, module, optimizer):
        next(module.parameters()).detach().add_(0.01 * torch.randn(()))


class Mixing(Callback):
    """Changes every batch."""

    def on_batch_begin(self, net, batch, training=False, **kwargs):
        batch[0].add_(torch.rand_like(batch[0]))


def noisy_loss(outputs, y):
    return functional.cross_entropy(outputs + torch.rand_like(outputs), y)


def with_a_hook():
    net = chain()
    net[1].register_forward_hook(lambda layer, x, y: y + torch.rand_like(y))
    return net


@pytest.mark.parametrize(
    "params",
    [
        {"module": chain(nn.Dropout(0.5))},
        {"module": chain(nn.RReLU()), "regularizers": [Blockout(2)]},
        {"module": Noisy},
        {"module": Noisy, "regularizers": [Blockout(2)]},
        {"module": with_a_hook()},
        {"regularizers": [Noise()]},
        {"callbacks": [Mixing()]},
        {"criterion": noisy_loss},
        {"module": chain(nn.Dropout(0.5)), "optimizer": torch.optim.LBFGS},
    ],
    ids=[
        *("dropout", "rrelu", "forward", "forward and masks", "hook"),
        *("penalty", "callback", "criterion", "line search"),
    ],
)
def test_draws_of_other_code(images, params):
    assert_threads_change_nothing(
        lambda seed: StructuredClassifier(
            **{**SMALL, "learning_rate": 0.01, **params, "random_state": seed}
        ),
        images,
    )


def test_both_ways_to_draw_give_the_same_numbers(images):
    """A layer outside of the package makes all draws come from the global generator."""

    class Foreign(nn.Identity):
        pass

    modules = [chain(nn.Identity()), chain(Foreign())]
    modules[1].load_state_dict(modules[0].state_dict())
    one, two = (
        StructuredClassifier(
            module, regularizers=[Blockout(2)], random_state=0, **SMALL
        ).fit(*images)
        for module in modules
    )
    pairs = zip(one.module_.parameters(), two.module_.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert own_generator(torch.device("cpu")) is None


def on_threads(n_threads, compute):
    """Compute with a number of torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        return compute()
    finally:
        torch.set_num_threads(before)


def on_rows():
    """List estimators without a convolution: torch rounds its gradients by threads."""
    params = {"max_epochs": 2, "hidden_layer_sizes": (12,), "random_state": 0}
    for kind in ESTIMATORS:
        yield kind(**params, **MORE.get(kind.__name__, {}))
    for kind in REGULARIZERS:
        if kind.__name__ != "SpatialDropout":  # for channels alone
            regularizer = kind(**MORE.get(kind.__name__, {}))
            yield StructuredClassifier(regularizers=[regularizer], **params)


@pytest.mark.parametrize("model", [*on_rows()], ids=repr)
def test_torch_threads_change_no_fit(images, model):
    def fit():
        module = clone(model).fit(*images).module_
        return [value.clone() for value in module.state_dict().values()]

    assert all(map(torch.equal, on_threads(1, fit), on_threads(2, fit)))


@pytest.mark.parametrize(
    "layer",
    [DropCluster2d(drop_rate=0.3), DropBlock2d(3, drop_rate=0.3), nn.Dropout2d(0.3)],
    ids=repr,
)
def test_torch_threads_change_no_mask(layer):
    maps = torch.randn(32, 16, 12, 12, generator=torch.Generator().manual_seed(0))

    def mask():
        if isinstance(layer, DropCluster2d):
            layer.update_clusters(maps)
        with seeded(0, torch.device("cpu")):
            return layer(maps)

    assert torch.equal(on_threads(1, mask), on_threads(2, mask))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("seconds", [0.5, 0.1])
def test_a_fork_beside_a_step_of_another_thread(monkeypatch, seconds):
    monkeypatch.setattr(randomness, "LONGEST_STEP", 0.3, raising=False)
    before, entered, forked = torch.get_rng_state(), Event(), Event()

    def step():
        with seeded(0, torch.device("cpu")):
            entered.set()
            forked.wait(seconds)

    thread = Thread(target=step)
    thread.start()
    entered.wait()
    child = os.fork()
    if not child:
        free = randomness.GLOBAL_LOCK.acquire(timeout=5)
        same = seconds > 0.3 or torch.equal(torch.get_rng_state(), before)
        os._exit(0 if free and same else 1)
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(randomness.GLOBAL_LOCK.acquire, timeout=5).result()
        pool.submit(randomness.GLOBAL_LOCK.release).result()
