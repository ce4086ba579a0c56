"""What users do with an estimator: labels, weights, images, resuming, reproducing."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EpochScoring,
    GradientNormClipping,
)
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from sklearn_structreg.core import StructuredClassifier

IGNORE = "ignore::sklearn.exceptions.ConvergenceWarning"
FAST = {"max_epochs": 3, "random_state": 0}
EXACT = {"dtype": "float64", "batch_size": None, "max_epochs": 20, "random_state": 0}


def weights(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.module_.parameters()])


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["a", "b", "c"]),
        np.array(["a", "b", "c"], dtype=object),
        np.array([-5, 0, 1000]),
        np.array([1.0, 2.0, 4.0]),
    ],
)
def test_labels_of_any_type_come_back(blobs, labels):
    X, y = blobs
    model = StructuredClassifier(max_epochs=30, random_state=0).fit(X, labels[y])
    np.testing.assert_array_equal(model.classes_, labels)
    assert model.predict(X).dtype == labels.dtype
    assert model.score(X, labels[y]) > 0.9


def test_boolean_labels_and_categories(blobs):
    X, y = blobs
    assert StructuredClassifier(**FAST).fit(X, y == 1).classes_.dtype == bool
    categories = pd.Series(np.array(["x", "y", "z"])[y], dtype="category")
    model = StructuredClassifier(**FAST).fit(X, categories)
    assert list(model.classes_) == ["x", "y", "z"]


def test_one_class_is_predicted_with_certainty(blobs):
    X, _ = blobs
    model = StructuredClassifier(**FAST).fit(X, np.full(len(X), "only"))
    assert set(model.predict(X)) == {"only"}
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((len(X), 1)))


def test_decision_function_is_the_log_odds(blobs):
    X, y = blobs
    model = StructuredClassifier(**FAST).fit(X, y == 1)
    p = model.predict_proba(X)
    assert p.dtype == np.float64
    np.testing.assert_allclose(
        model.decision_function(X), np.log(p[:, 1] / p[:, 0]), rtol=1e-6
    )


def test_a_sample_is_predicted_alike_alone_and_in_company(digits):
    X, y = digits
    model = StructuredClassifier(**FAST).fit(X, y)
    alone = np.vstack([model.predict_proba(X[i : i + 1]) for i in range(20)])
    np.testing.assert_array_equal(alone, model.predict_proba(X)[:20])


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 1, 16), (1, 4, 4, 4)])
def test_images_by_shape_and_by_parameter(digits, shape):
    X, y = digits[0][:300], digits[1][:300]
    images = X.reshape(-1, *shape)
    settings = FAST | {"max_epochs": 10}
    by_shape = StructuredClassifier(**settings).fit(images, y)
    by_parameter = StructuredClassifier(image_shape=shape, **settings).fit(X, y)
    assert by_shape.input_shape_ == by_parameter.input_shape_ == shape
    assert by_shape.n_features_in_ == 64
    assert torch.equal(weights(by_shape), weights(by_parameter))
    np.testing.assert_array_equal(by_shape.predict(X), by_parameter.predict(images))
    convolution = nn.Conv2d if len(shape) == 3 else nn.Conv3d
    assert isinstance(by_shape.module_[0], convolution)


def test_convnet_learns_the_digits(digits):
    X, y = digits
    model = StructuredClassifier(image_shape=(1, 8, 8), max_epochs=10, random_state=0)
    assert model.fit(X[:1200], y[:1200]).score(X[1200:], y[1200:]) > 0.8


# ---- weights -------------------------------------------------------------------


def test_weight_zero_is_absent_and_weight_k_is_k_copies_to_the_last_bit(blobs):
    X, y = blobs
    weight = np.random.default_rng(0).integers(0, 4, size=len(X))
    weighted = StructuredClassifier(**EXACT).fit(X, y, sample_weight=weight)
    repeated = StructuredClassifier(**EXACT).fit(X.repeat(weight, 0), y.repeat(weight))
    assert torch.equal(weights(weighted), weights(repeated))


def test_weight_zero_is_absent_with_mini_batches(digits):
    X, y = digits
    weight = (np.arange(len(X)) % 3 > 0).astype(float)
    weighted = StructuredClassifier(**FAST).fit(X, y, sample_weight=weight)
    subset = StructuredClassifier(**FAST).fit(X[weight > 0], y[weight > 0])
    assert torch.equal(weights(weighted), weights(subset))


def test_absent_rows_bring_no_class(blobs):
    X, y = blobs
    model = StructuredClassifier(**FAST).fit(X, y, sample_weight=(y < 2).astype(float))
    assert list(model.classes_) == [0, 1]


def test_full_batch_does_not_depend_on_the_order_of_the_rows(blobs):
    X, y = blobs
    order = np.random.default_rng(1).permutation(len(X))
    one = StructuredClassifier(**EXACT).fit(X, y)
    two = StructuredClassifier(**EXACT).fit(X[order], y[order])
    assert torch.equal(weights(one), weights(two))


def test_class_weights_multiply_sample_weights(blobs):
    X, y = blobs
    factors = {0: 1.0, 1: 2.0, 2: 0.5}
    by_class = StructuredClassifier(class_weight=factors, **EXACT).fit(X, y)
    by_sample = StructuredClassifier(**EXACT).fit(
        X, y, sample_weight=np.array([1.0, 2.0, 0.5])[y]
    )
    assert torch.equal(weights(by_class), weights(by_sample))


def test_huge_weights_are_weights_all_the_same(blobs):
    X, y = blobs
    weight = 1.0 + np.arange(len(X)) % 2
    huge = StructuredClassifier(**EXACT).fit(X, y, sample_weight=1e307 * weight)
    torch.testing.assert_close(
        weights(huge), weights(StructuredClassifier(**EXACT).fit(X, y, weight))
    )


def test_balanced_gives_each_class_the_same_weight(blobs):
    X, y = blobs
    weight = 1.0 + np.arange(len(X)) % 2
    totals = np.bincount(y, weights=weight)
    balanced = StructuredClassifier(class_weight="balanced", **EXACT)
    balanced.fit(X, y, sample_weight=weight)
    by_hand = StructuredClassifier(**EXACT).fit(X, y, weight / totals[y])
    torch.testing.assert_close(weights(balanced), weights(by_hand))


# ---- reproducibility -----------------------------------------------------------


def test_same_random_state_same_weights(digits):
    X, y = digits
    one, two = (StructuredClassifier(**FAST).fit(X, y) for _ in range(2))
    other = StructuredClassifier(max_epochs=3, random_state=1).fit(X, y)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))


@pytest.mark.filterwarnings(IGNORE)
def test_dropout_is_reproducible_and_draws_anew_each_epoch(digits):
    X, y = digits
    net = nn.Sequential(nn.Linear(64, 20), nn.Dropout(0.5), nn.Linear(20, 10))
    one, two = (StructuredClassifier(net, **FAST).fit(X, y) for _ in range(2))
    assert torch.equal(weights(one), weights(two))
    # Without learning and with one batch, only the masks tell the epochs apart.
    still = {"learning_rate": 1e-30, "batch_size": None, **FAST}
    losses = StructuredClassifier(net, **still).fit(X, y).history_[:, "train_loss"]
    assert len(set(losses)) == 3
    losses = StructuredClassifier(net[::2], **still).fit(X, y).history_[:, "train_loss"]
    assert len(set(losses)) == 1


def test_global_state_stays_as_it_was(digits):
    X, y = digits
    net = nn.Sequential(nn.Linear(64, 20), nn.Dropout(0.5), nn.Linear(20, 10))
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 (the state that must not change)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    StructuredClassifier(net, dtype="float64", **FAST).fit(X, y).predict(X)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)


@pytest.mark.filterwarnings(IGNORE)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_there_whatever_the_mode_around(blobs, mode, tmp_path):
    model = StructuredClassifier(max_epochs=2, n_members=3, random_state=0)
    expected = clone(model).fit(*blobs).partial_fit(*blobs).predict_proba(blobs[0])
    with mode():
        model.fit(*blobs).partial_fit(*blobs).save(tmp_path / "model")
        loaded = StructuredClassifier.load(tmp_path / "model")
    for found in (model, loaded):
        assert np.array_equal(found.predict_proba(blobs[0]), expected)


def test_inputs_and_a_module_instance_stay_as_they_were(blobs):
    X, y = blobs
    X = np.ascontiguousarray(X, dtype=np.float32)
    before = X.copy()
    torch.manual_seed(0)
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))  # writes to its input
    start = net[1].weight.clone()
    for batch_size in (None, 16):
        model = StructuredClassifier(net, batch_size=batch_size, **FAST).fit(X, y)
        model.predict_proba(X)
        np.testing.assert_array_equal(X, before)
        assert torch.equal(net[1].weight, start)


def test_float64_is_computed_in_float64(blobs):
    X, y = blobs
    model = StructuredClassifier(dtype="float64", **FAST).fit(X, y)
    assert {p.dtype for p in model.module_.parameters()} == {torch.float64}


# ---- torch datasets ------------------------------------------------------------


class Items(Dataset):
    """A dataset of (x, label) with string labels, that knows no targets."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return torch.from_numpy(self.X[row]), str(self.y[row])


def test_dataset_trains_as_the_array_does(digits):
    X, y = digits[0].astype(np.float32)[:300], digits[1][:300]
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    from_array = StructuredClassifier(**FAST).fit(X, y)
    from_dataset = StructuredClassifier(**FAST).fit(tensors)
    assert torch.equal(weights(from_array), weights(from_dataset))
    np.testing.assert_array_equal(
        from_dataset.predict_proba(tensors), from_array.predict_proba(X)
    )
    halves = torch.utils.data.random_split(tensors, [0.5, 0.5])
    assert StructuredClassifier(**FAST).fit(halves[0]).predict(halves[1]).shape == (
        150,
    )


def test_dataset_with_labels_of_its_own_kind_and_weights(digits):
    X, y = digits[0].astype(np.float32)[:200], digits[1][:200]
    weight = (y < 3).astype(float)
    model = StructuredClassifier(image_shape=(1, 8, 8), **FAST)
    model.fit(Items(X, y), sample_weight=weight)
    assert list(model.classes_) == ["0", "1", "2"]
    assert model.input_shape_ == (1, 8, 8)
    assert model.predict(X).shape == (200,)


def test_dataset_with_early_stopping_and_partial_fit(digits):
    X, y = digits[0].astype(np.float32)[:300], digits[1][:300]
    model = StructuredClassifier(early_stopping=True, **FAST).fit(Items(X, y))
    assert "valid_loss" in model.history_[-1]
    stream = StructuredClassifier(**FAST)
    stream.partial_fit(Items(X, y), classes=[str(label) for label in range(10)])
    assert stream.predict(Items(X, y)).shape == (300,)


# ---- callbacks and verbosity ---------------------------------------------------


class Listener(Callback):
    def __init__(self):
        self.batches, self.epochs = 0, 0

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        assert kwargs["loss"].ndim == 0
        self.batches += training

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


def test_skorch_callbacks_are_called(digits):
    X, y = digits
    listener = Listener()
    model = StructuredClassifier(callbacks=[("ear", listener)], **FAST).fit(X, y)
    assert (listener.batches, listener.epochs) == (3 * 15, 3)
    assert len(model.history_[-1, "batches"]) == 15
    quiet = StructuredClassifier(**FAST).fit(X, y)
    assert torch.equal(weights(quiet), weights(model))


def test_skorch_scoring_checkpoints_and_clipping_work_inside(digits, tmp_path):
    X, y = digits
    model = StructuredClassifier(
        early_stopping=True,
        callbacks=[
            EpochScoring("accuracy", name="train_acc", on_train=True),
            EpochScoring("f1_macro", name="f1", lower_is_better=False),
            EpochScoring("neg_log_loss", name="log_loss", lower_is_better=False),
            GradientNormClipping(0.1),
            Checkpoint(dirname=tmp_path),
        ],
        **FAST,
    ).fit(X, y)
    row = model.history_[-1]
    assert row["log_loss"] == pytest.approx(-row["valid_loss"], rel=1e-4)
    assert 0 < row["f1"] < 1
    assert 0 < row["train_acc"] < 1
    assert model.history_[:, "valid_loss_best"] == [True, True, True]
    assert (tmp_path / "params.pt").exists()


def test_verbosity(blobs, capsys):
    for verbose in (0, 1, 2):
        StructuredClassifier(verbose=verbose, **FAST).fit(*blobs)
        out, err = capsys.readouterr()
        assert ("train_loss" in out) == (verbose >= 1)
        assert ("Training: 100%" in err) == (verbose == 2)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", torch.optim.RMSprop])
def test_other_optimizers(blobs, optimizer):
    model = StructuredClassifier(
        optimizer=optimizer, learning_rate=1e-3, max_epochs=60, random_state=0
    )
    assert model.fit(*blobs).score(*blobs) > 0.9


def test_line_search_optimizer(blobs):
    model = StructuredClassifier(
        optimizer=torch.optim.LBFGS, learning_rate=0.5, batch_size=None, max_epochs=5
    )
    assert model.fit(*blobs).score(*blobs) > 0.9


def test_schedules(blobs):
    def halve(optimizer, n_epochs):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    cosine = StructuredClassifier(lr_schedule="cosine", max_epochs=4).fit(*blobs)
    rates = cosine.history_[:, "event_lr"]
    np.testing.assert_allclose(
        rates, 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2, rtol=1e-6
    )
    own = StructuredClassifier(lr_schedule=halve, max_epochs=3).fit(*blobs)
    np.testing.assert_allclose(own.history_[:, "event_lr"], [0.05, 0.025, 0.0125])
