"""Items of a torch `Dataset`: random ones by (seed, row), wrong ones by their row."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from rooms import ESTIMATORS
from sklearn.base import clone
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from sklearn_structreg.core import StructuredClassifier, make_mlp
from sklearn_structreg.core.dataset_items import dataset_targets
from sklearn_structreg.selfinformed import SelfInformedClassifier

N = 120
FAST = {"max_epochs": 2, "hidden_layer_sizes": (12,), "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Items(Dataset):
    """Items made by a function of samples, labels and a row; counts what is read."""

    def __init__(self, X, y, make=lambda X, y, row: (X[row], y[row])):
        self.X, self.y, self.make = X, y, make
        self.reads = Counter()

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        self.reads[row] += 1
        return self.make(self.X, self.y, row)


@pytest.fixture(scope="module")
def rows(digits):
    X, y = digits
    return X[:N].astype(np.float32), y[:N] % 3


def noisy(X, y, row):
    """Draw from all three global generators."""
    noise = torch.rand(64).numpy() + np.random.rand(64) + random.random()  # noqa: NPY002
    return (X[row] + 0.1 * noise).astype(np.float32), y[row]


def weights(model):
    return [p.detach() for p in model.module_.parameters()]


def global_state():
    numbers = str(np.random.get_state())  # noqa: NPY002 (the global one)
    return torch.get_rng_state().tolist(), numbers, random.getstate()


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
def test_random_items_follow_from_the_seed(rows, kind):
    more = {"start_epoch": 1} if "DropCluster" in kind.__name__ else {}
    fits = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(fits))
        before = global_state()
        params = FAST | {"random_state": seed, "image_shape": (1, 8, 8)}
        model = kind(**params, **more).fit(Items(*rows, noisy))
        predicted = model.predict(Items(*rows, noisy))
        assert global_state() == before
        fits.append([*weights(model), torch.from_numpy(predicted)])
    assert all(map(torch.equal, fits[0], fits[1]))
    assert not all(map(torch.equal, fits[0], fits[2]))


def test_every_epoch_and_row_has_draws_of_its_own(rows):
    seen = []

    def draw(X, y, row):
        seen.append((row, float(torch.rand(())), np.random.rand(), random.random()))  # noqa: NPY002
        return X[row], y[row]

    StructuredClassifier(make_mlp(64, 3), **FAST).fit(Items(*rows, draw), rows[1])
    epochs = seen[3 : 3 + 2 * N]  # after the rows that are looked at first
    assert Counter(row for row, *_ in epochs) == dict.fromkeys(range(N), 2)
    for column in (1, 2, 3):
        assert len({draws[column] for draws in epochs}) == 2 * N


@pytest.mark.parametrize(
    "make",
    [
        lambda X, y, row: [X[row], y[row], "more"],
        lambda X, y, row: {
            "image": X[row].reshape(8, 8),
            "label": torch.tensor(y[row]),
        },
        lambda X, y, row: {"pixel_values": torch.tensor(X[row]), "labels": int(y[row])},
        lambda X, y, row: (
            Image.fromarray(np.uint8(16 * X[row]).reshape(8, 8)),
            y[row],
        ),
    ],
    ids=["list", "image-label", "pixel_values-labels", "picture"],
)
def test_items_equal_arrays(rows, make):
    X, y = rows
    scale = 16 if isinstance(make(X, y, 0), tuple) else 1  # a picture has integers
    expected = StructuredClassifier(image_shape=(8, 8), **FAST).fit(scale * X, y)
    model = StructuredClassifier(image_shape=(8, 8), **FAST).fit(Items(X, y, make))
    for one, two in zip(weights(model), weights(expected), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_pictures_have_channels_first():
    pixels = np.random.default_rng(0).integers(256, size=(N, 5, 4, 3), dtype=np.uint8)
    data = Items(
        pixels, np.arange(N) % 2, lambda X, y, r: (Image.fromarray(X[r]), y[r])
    )
    model = StructuredClassifier(**FAST).fit(data)
    assert model.input_shape_ == (3, 5, 4)
    np.testing.assert_array_equal(
        model.predict(data), model.predict(pixels.transpose(0, 3, 1, 2))
    )


def changed(row, value):
    """Return a function that makes items, one of them different."""
    return lambda X, y, r: value(X, y) if r == row else (X[r], y[r])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (changed(7, lambda X, y: (X[0][:9], y[0])), "Row 7 .* shape \\(9,\\)"),
        (changed(7, lambda X, y: (X[0] * np.nan, y[0])), "Row 7 .* NaN"),
        (changed(7, lambda X, y: (np.float64(1e300) + X[0], y[0])), "Row 7 .* large"),
        (changed(7, lambda X, y: ("text", y[0])), "Row 7 .* type str"),
        (changed(7, lambda X, y: (None, y[0])), "Row 7 .* type NoneType"),
        (changed(7, lambda X, y: (X[0], "a")), "Row 7 .* label 'a'"),
        (changed(7, lambda X, y: (X[0], [0, 1])), "Row 7 .* label of shape \\(2,\\)"),
        (changed(7, lambda X, y: (X[0],)), "Row 7 .* no label"),
        (lambda X, y, r: {"picture": X[r], "y": y[r]}, "keys \\['picture', 'y'\\]"),
        (lambda X, y, r: {"x": X[r], "image": X[r], "y": y[r]}, "several"),
        (lambda X, y, r: {"x": X[r], "kind": y[r]}, "none may be the label"),
    ],
)
def test_a_wrong_item_is_named_by_its_row(rows, make, message):
    with pytest.raises(ValueError, match=message):
        StructuredClassifier(**FAST).fit(Items(*rows, make))


def test_predictions_name_wrong_rows_too(rows):
    model = StructuredClassifier(**FAST).fit(Items(*rows))
    wrong = Items(*rows, changed(7, lambda X, y: (X[0] - np.inf, y[0])))
    with pytest.raises(ValueError, match="Row 7"):
        model.predict(wrong)


class Transformed(Items):
    """As torchvision's: `targets` are those before the transform."""

    def __init__(self, X, y):
        super().__init__(X, y, lambda X, y, row: (X[row], int(y[row] > 0)))
        self.targets, self.target_transform = y, lambda label: int(label > 0)


class WithTargets(Items):
    def __init__(self, X, y):
        super().__init__(X, y)
        self.targets = [int(label) for label in y]


@pytest.mark.parametrize("wrap", ["plain", "subset", "both"])
def test_labels_are_found_without_reading(rows, wrap):
    X, y = rows
    data = WithTargets(X, y)
    more = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    wrapped = {
        "plain": (data, y),
        "subset": (Subset(data, range(5, 50, 3)), y[5:50:3]),
        "both": (ConcatDataset([data, Subset(more, range(9))]), [*y, *y[:9]]),
    }
    dataset, expected = wrapped[wrap]
    np.testing.assert_array_equal(dataset_targets(dataset), expected)
    assert not data.reads


def test_other_labels_are_read_once(rows):
    X, y = rows
    data = Items(X, y)
    part = Subset(data, range(0, N, 2))
    np.testing.assert_array_equal(dataset_targets(part), y[::2])
    assert data.reads == Counter(range(0, N, 2))
    np.testing.assert_array_equal(dataset_targets(Transformed(X, y)), y > 0)


@pytest.mark.parametrize(
    ("model", "n_passes"),
    [
        (StructuredClassifier(make_mlp(64, 3)), 0),
        (StructuredClassifier(), 1),  # for mean and scale
        # for the confusions, and for another training
        (SelfInformedClassifier(n_clusters=2, cv=None), 1 + 1 + 3),
    ],
    ids=["module", "standardized", "heads"],
)
def test_a_fit_reads_no_item_more_often_than_it_must(rows, model, n_passes):
    data = Items(*rows)
    clone(model).set_params(max_epochs=10, learning_rate=0.2).fit(data)
    once_for_labels, epochs = 1, 10
    expected = once_for_labels + epochs + n_passes
    assert max(data.reads[row] for row in range(2, N)) == expected
