"""The options of a training: `Training`, alone and with every regularizer."""

import pickle

import numpy as np
import pytest
import torch
from checkpoint_cases import Branched
from rooms import REGULARIZERS
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset

from sklearn_structreg import CGESClassifier, SelfInformedClassifier
from sklearn_structreg.baselines import Dropout, StochasticDepth
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor, Training

FAST = {"max_epochs": 6, "hidden_layer_sizes": (20,), "random_state": 0}


@pytest.fixture(scope="module")
def rows(digits):
    X, y = digits
    return X[:300].copy(), y[:300].copy()


def linear(input_shape, n_outputs):
    """Build a linear model that begins at zero."""
    layer = nn.Linear(input_shape[0], n_outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def bare_loop(rows, n_steps, *, clip=None, decay=None, **settings):
    """Train the linear model on all rows at once, in float64, by torch alone."""
    X, y = (torch.as_tensor(part) for part in rows)
    model = linear((64,), 10).double()
    optimizer = torch.optim.SGD(model.parameters(), **settings)

    def towards(averages, weights, n_averaged):
        kept = min(decay, (1 + int(n_averaged)) / (10 + int(n_averaged)))
        for average, weight in zip(averages, weights, strict=True):
            average.mul_(kept).add_(weight, alpha=1 - kept)

    average = AveragedModel(model, multi_avg_fn=towards)
    average.n_averaged += 1  # the initial weights are the first
    for step in range(n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X.double()), y).backward()
        if clip is not None:
            norm = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
            for parameter in model.parameters():
                parameter.grad *= min(1, clip / (float(norm) + 1e-6))  # as torch rounds
        optimizer.step()
        average.n_averaged.fill_(step)
        if decay is not None:
            average.update_parameters(model)
    if decay is not None:
        model = average.module
    return model(X.double()).softmax(dim=1).detach().numpy()


@pytest.mark.parametrize(
    ("training", "reference"),
    [
        (Training(optimizer_params={"nesterov": True}), {"nesterov": True}),
        (Training(optimizer_params={"dampening": 0.5}), {"dampening": 0.5}),
        (Training(clip_grad_norm=0.1), {"clip": 0.1}),
        (Training(average_weights=0.7), {"decay": 0.7}),
        (Training(average_weights=0.3), {"decay": 0.3}),
        (
            Training(clip_grad_norm=0.1, average_weights=0.8),
            {"clip": 0.1, "decay": 0.8},
        ),
    ],
)
def test_steps_against_a_bare_loop(rows, training, reference):
    settings = {"lr": 0.02, "momentum": 0.9} | reference
    expected = bare_loop(rows, 12, **settings)
    params = {"dtype": "float64", "batch_size": None, "learning_rate": 0.02}
    model = StructuredClassifier(linear, max_epochs=12, training=training, **params)
    found = model.fit(*rows).predict_proba(rows[0])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    plain = clone(model).set_params(training=None).fit(*rows).predict_proba(rows[0])
    assert np.abs(found - plain).max() > 1e-3


def test_validation_and_the_best_epoch_are_those_of_the_average(rows):
    X, y = rows
    model = StructuredClassifier(
        early_stopping=True,
        n_iter_no_change=2,
        learning_rate=0.5,
        training=Training(average_weights=0.9),
        **FAST | {"max_epochs": 40},
    )
    model.fit(X[:200], y[:200], eval_set=(X[200:], y[200:]))
    losses = model.history_[:, "valid_loss"]
    assert model.n_iter_ < 40
    found = log_loss(y[200:], model.predict_proba(X[200:]), labels=range(10))
    assert found == pytest.approx(min(losses), rel=1e-5)


def test_calls_of_partial_fit_go_on_from_the_last_step(rows):
    params = FAST | {"batch_size": 50, "training": Training(average_weights=0.9)}
    model = StructuredClassifier(**params)
    for call in range(6):
        model.partial_fit(*rows, classes=range(10))
        if call == 2:
            model = pickle.loads(pickle.dumps(model))
    # The order of the rows follows from the seed and the epoch, as in `fit`.
    whole = StructuredClassifier(**params).fit(*rows)
    np.testing.assert_allclose(
        model.predict_proba(rows[0]), whole.predict_proba(rows[0]), atol=1e-6
    )


def test_a_fit_keeps_no_second_copy_of_the_weights(rows):
    params = FAST | {"hidden_layer_sizes": (500, 500)}
    sizes = [
        len(pickle.dumps(StructuredClassifier(training=each, **params).fit(*rows)))
        for each in (None, Training(average_weights=0.9))
    ]
    assert sizes[1] < 1.05 * sizes[0]


def test_zeros_of_a_penalty_survive_the_average(rows):
    model = CGESClassifier(
        alpha=3, training=Training(average_weights=0.99), **FAST | {"max_epochs": 30}
    ).fit(*rows)
    plain = clone(model).set_params(training=None).fit(*rows)
    assert model.sparsity_ == plain.sparsity_ > 0.3


def test_half_precision_trains_weights_of_full_precision(rows):
    full = StructuredClassifier(**FAST).fit(*rows)
    half = clone(full).set_params(training__precision="bfloat16").fit(*rows)
    assert {p.dtype for p in half.module_.parameters()} == {torch.float32}
    losses = [each.history_[-1]["train_loss"] for each in (full, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


class Shifted:
    """An augmentation that draws, and counts its calls."""

    def __init__(self):
        self.sizes = []

    def __call__(self, X):
        self.sizes.append(len(X))
        return X + 0.3 * torch.randn_like(X)


def test_augmentation_follows_the_seed_and_spares_validation(rows):
    X, y = rows
    model = StructuredClassifier(batch_size=60, standardize=False, **FAST)
    state = torch.random.get_rng_state()
    fits = []
    for seed in (0, 0, 1):
        augment = Shifted()
        training = Training(augment=augment)
        each = clone(model).set_params(random_state=seed)
        each.training = training
        each.fit(X[:240], y[:240], eval_set=(X[240:], y[240:]))
        assert augment.sizes == [60] * 4 * 6
        loss = log_loss(y[240:], each.predict_proba(X[240:]), labels=range(10))
        assert each.history_[-1]["valid_loss"] == pytest.approx(loss, rel=1e-5)
        fits.append(each.predict_proba(X))
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])
    plain = clone(model).fit(X[:240], y[:240]).predict_proba(X)
    assert not np.array_equal(fits[0], plain)


@pytest.mark.parametrize("kind", REGULARIZERS)
def test_all_options_with_every_regularizer(rows, kind):
    X, y = rows
    model = StructuredClassifier(
        Branched if kind is StochasticDepth else "auto",
        image_shape=None if kind is StochasticDepth else (1, 8, 8),
        regularizers=[kind()],
        training=Training(
            optimizer_params={"nesterov": True},
            clip_grad_norm=1.0,
            average_weights=0.9,
            precision="bfloat16",
            augment=lambda X: X + 0.1 * torch.randn_like(X),
        ),
        **FAST | {"max_epochs": 12},
    )
    fits = [clone(model).fit(X, y) for _ in range(2)]
    assert fits[0].score(X, y) > 0.6
    assert np.array_equal(*(each.predict_proba(X) for each in fits))
    losses = fits[0].history_[:, "train_loss"]
    assert losses[-1] < losses[0]


def test_numbers_and_heads_take_the_options_too(rows):
    X, y = rows
    training = Training(clip_grad_norm=1.0, average_weights=0.9)
    numbers = StructuredRegressor(training=training, **FAST | {"max_epochs": 30})
    assert numbers.fit(X, y).score(X, y) > 0.7
    heads = SelfInformedClassifier(training=training, **FAST | {"max_epochs": 30})
    assert heads.fit(X, y).score(X, y) > 0.85


def test_a_search_over_an_option_that_is_not_set_yet(rows):
    model = CGESClassifier(**FAST)
    grid = {"training__clip_grad_norm": [0.1, None], "alpha": [0.1]}
    search = GridSearchCV(model, grid, cv=2).fit(*rows)
    assert model.training is None
    assert len(set(search.cv_results_["mean_test_score"])) == 2


def test_groups_of_parameters_against_torch(rows, tmp_path):
    groups = [("body.*", {"lr": 0.001, "momentum": 0.5}), ("*.bias", {"lr": 0.1})]
    net = nn.Sequential()
    for name, layer in ("body", nn.Linear(64, 20)), ("top", nn.Linear(20, 10)):
        net.add_module(name, layer.double())
    model = StructuredClassifier(
        net,
        learning_rate=0.2,
        weight_decay=0.01,
        max_epochs=20,
        batch_size=None,
        dtype="float64",
        lr_schedule="cosine",
        training=Training(optimizer_params={"param_groups": groups}),
    ).fit(*rows)

    settings = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}
    optimizer = torch.optim.SGD(
        [
            {"params": net.body.parameters(), "lr": 0.001, "momentum": 0.5},
            {"params": [net.top.bias], "lr": 0.1},
            {"params": [net.top.weight]},
        ],
        **settings,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    X, y = (torch.as_tensor(part) for part in rows)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X.double()), y).backward()
        optimizer.step()
        schedule.step()
    for found, expected in zip(
        model.module_.parameters(), net.parameters(), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    assert model.history_[0, "event_lr"] == 0.2

    model.save(tmp_path / "net")
    loaded = StructuredClassifier.load(tmp_path / "net", module=net)
    assert loaded.training.optimizer_params == {"param_groups": groups}
    after = [each.partial_fit(*rows).predict_proba(X) for each in (model, loaded)]
    np.testing.assert_array_equal(*after)


@pytest.mark.parametrize("method", [Blockout(4), CGES(0.3)], ids=["Blockout", "CGES"])
def test_groups_of_parameters_beside_a_method(rows, method):
    still = {"param_groups": [("0.*", {"lr": 0.0})]}
    model = StructuredClassifier(
        regularizers=[method], training=Training(optimizer_params=still), **FAST
    )
    short = clone(model).set_params(max_epochs=1).fit(*rows)
    first, last = (
        dict(each.module_.named_parameters()) for each in (short, model.fit(*rows))
    )
    held = {name for name in first if name.startswith("0.") and "logits" not in name}
    assert {name for name in first if torch.equal(first[name], last[name])} == held


def test_groups_are_those_of_the_network_without_heads(rows):
    training = Training(optimizer_params={"param_groups": [("0.*", {"lr": 0.0})]})
    model = SelfInformedClassifier(n_clusters=2, training=training, **FAST).fit(*rows)
    assert model.set_params(warm_start=True).fit(*rows).n_iter_ > 0


def test_files_and_what_they_leave_out(rows, tmp_path):
    plain = Training(average_weights=0.9, optimizer_params={"nesterov": True})
    coded = Training(augment=Shifted())
    params = FAST | {"standardize": False}
    for training, after in ((plain, plain.get_params()), (coded, None)):
        model = StructuredClassifier(training=training, **params).fit(*rows)
        model.save(tmp_path / "net")
        loaded = StructuredClassifier.load(tmp_path / "net")
        found = None if loaded.training is None else loaded.training.get_params()
        assert found == after
        same = loaded.predict_proba(rows[0]) == model.predict_proba(rows[0])
        assert same.all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # in torch itself
@pytest.mark.parametrize("kind", [CGES, Dropout], ids=["CGES", "Dropout"])
def test_compiled_training_keeps_outputs_within_rounding(rows, kind):
    model = StructuredClassifier(regularizers=[kind(0.1)], **FAST)
    fits = [
        clone(model).set_params(training=each).fit(*rows).predict_proba(rows[0])
        for each in (None, Training(compile=True))
    ]
    np.testing.assert_allclose(*fits, atol=1e-5)


class Items(Dataset):
    """Random rows one by one."""

    def __init__(self, X, y):
        self.X, self.targets = torch.as_tensor(X, dtype=torch.float32), y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return self.X[row] + 0.1 * torch.randn(64), self.targets[row]


def test_workers_load_the_same_random_items(rows):
    X, y = rows
    fits = []
    for params in (None, {"num_workers": 1}, {"num_workers": 2, "prefetch_factor": 4}):
        model = StructuredClassifier(
            standardize=False, training=Training(loader_params=params), **FAST
        )
        model.fit(Items(X, y))
        fits.append([p.detach().numpy() for p in model.module_.parameters()])
    for other in fits[1:]:
        assert all(map(np.array_equal, fits[0], other))


BAD = {
    "an own setting": ({"optimizer_params": {"lr": 1}}, "learning_rate in its place"),
    "momentum": ({"optimizer_params": {"momentum": 0}}, "momentum in its place"),
    "unknown": ({"optimizer_params": {"betas": 1}}, "SGD does not take"),
    "a group": ({"optimizer_params": {"param_groups": ("0.*", {})}}, "list pairs of"),
    "no groups": ({"optimizer_params": {"param_groups": 3}}, "list pairs of"),
    "in a group": (
        {"optimizer_params": {"param_groups": [("0.*", {"rate": 1})]}},
        "sets 'rate', which SGD does not take",
    ),
    "no parameter": (
        {"optimizer_params": {"param_groups": [("3.*", {"lr": 1.0})]}},
        r"has '3.\*', but .* 0.weight, 0.bias, 2.weight, 2.bias; match one",
    ),
    "a norm of zero": ({"clip_grad_norm": 0}, "'clip_grad_norm' parameter of Training"),
    "true": ({"clip_grad_norm": True}, "'clip_grad_norm' parameter of Training"),
    "a decay of one": ({"average_weights": 1.0}, "'average_weights' parameter"),
    "half": ({"precision": "float16"}, "'precision' parameter"),
    "no function": ({"augment": 3}, "'augment' parameter"),
    "shape": ({"augment": lambda X: X[:, 1:]}, "must return one of that shape"),
    "nothing": ({"augment": lambda X: None}, "returns None for a tensor"),
    "failing": ({"augment": lambda X: 1 / 0}, "fails: ZeroDivisionError"),
    "loader": ({"loader_params": {"shuffle": True}}, "not for you to set"),
    "loading": ({"loader_params": {"workers": 2}}, "not for you to set"),
}


@pytest.mark.parametrize(("params", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_used(rows, params, words):
    with pytest.raises(ValueError, match=words):
        StructuredClassifier(training=Training(**params), **FAST).fit(*rows)


def test_half_precision_is_for_single_precision(rows):
    training = Training(precision="bfloat16")
    with pytest.raises(ValueError, match="is for dtype='float32'"):
        StructuredClassifier(dtype="float64", training=training, **FAST).fit(*rows)
