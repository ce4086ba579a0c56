"""The `estimator` parameter: networks of this package, skorch nets, and refusals."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    DropClusterClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.baselines import Dropout
from sklearn_structreg.core import (
    StructuredClassifier,
    StructuredRegressor,
    make_mlp,
)

FAST = {"max_epochs": 3, "random_state": 0}
HEADS = {"n_clusters": 3, "head_layer_sizes": (8,), "head_epochs": 1.0}


def states(module):
    return dict(module.state_dict())


@pytest.fixture
def some_digits(digits):
    return digits[0][:600], digits[1][:600]


@pytest.fixture
def base(some_digits):
    return StructuredClassifier(max_epochs=5, random_state=0).fit(*some_digits)


@pytest.fixture
def convnet():
    """Batch normalization and dropout, both of which change while they train."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        *make_mlp(128, 10, (20,)),
    )


def test_old_weights_and_buffers_are_bit_identical(some_digits, convnet):
    X, y = some_digits
    base = StructuredClassifier(convnet, image_shape=(1, 8, 8), **FAST).fit(X, y)
    before = pickle.loads(pickle.dumps(states(base.module_)))
    model = SelfInformedClassifier(base, n_rounds=2, **HEADS, **FAST).fit(X, y)
    assert model.estimator_ is base
    old = [states(base.module_), states(model.module_.trunk)]
    for name, value in before.items():
        assert torch.equal(old[0][name], value)
        assert name.startswith("8.") or torch.equal(old[1][name], value)
    moved = SelfInformedClassifier(base, fine_tune=True, **HEADS, **FAST).fit(X, y)
    assert not torch.equal(moved.module_.trunk[0].weight, before["0.weight"])
    assert not torch.equal(
        moved.module_.trunk[1].running_mean, before["1.running_mean"]
    )
    assert torch.equal(base.module_[0].weight, before["0.weight"])


def test_an_unfitted_base_is_cloned_and_trained_on_the_training_part(some_digits):
    X, y = some_digits
    base = CGESClassifier(alpha=0.05, max_epochs=6, random_state=0)
    model = SelfInformedClassifier(base, **HEADS, **FAST).fit(X, y)
    assert not hasattr(base, "net_")
    assert isinstance(model.estimator_, CGESClassifier)
    assert model.estimator_.n_iter_ == 6
    assert model.n_iter_ == 3
    assert model.estimator_.sparsity_ > 0


def test_default_base_is_the_plain_net_on_the_training_part(some_digits):
    X, y = some_digits
    model = SelfInformedClassifier(cv=None, **HEADS, **FAST).fit(X, y)
    plain = StructuredClassifier(**FAST).fit(X, y)
    np.testing.assert_array_equal(
        model.estimator_.predict_proba(X), plain.predict_proba(X)
    )


def test_a_skorch_net_that_ends_in_a_softmax(some_digits):
    X, y = some_digits[0].astype(np.float32), some_digits[1].astype(np.int64)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Sequential(*make_mlp(64, 10, (30,)), nn.Softmax(dim=1)),
        lr=0.5,
        max_epochs=20,
        train_split=None,
        verbose=0,
    ).fit(X, y)
    off = SelfInformedClassifier(net, n_clusters=0).fit(X, y)
    np.testing.assert_allclose(off.predict_proba(X), net.predict_proba(X), atol=1e-6)
    model = SelfInformedClassifier(net, **HEADS, **FAST).fit(X, y)
    assert model.score(X, y) > 0.8


def groups_of(model):
    return [partition.groups_ for partition in model.partitions_]


BASES = [
    CGESClassifier(alpha=0.01, **FAST),
    BlockoutClassifier(hidden_layer_sizes=(30, 20), **FAST),
    BlockoutClassifier(image_shape=(1, 8, 8), **FAST),
    StructuredClassifier(regularizers=[Dropout(0.5)], **FAST),
    DropClusterClassifier(image_shape=(1, 8, 8), **FAST),
]


@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_method_can_be_the_base(some_digits, base):
    X, y = some_digits
    model = SelfInformedClassifier(base, n_rounds=2, **HEADS, **FAST).fit(X, y)
    off = SelfInformedClassifier(model.estimator_, n_clusters=0).fit(X, y)
    np.testing.assert_array_equal(
        off.predict_proba(X), model.estimator_.predict_proba(X)
    )
    module = model.module_.train()
    assert not any(part.training for part in module.trunk.modules())
    assert not any(p.requires_grad for p in module.trunk.parameters())
    for name, weight in states(module.trunk).items():
        assert torch.equal(weight, states(off.module_.trunk)[name])
    assert module.point.places[0].side == "input"
    sizes = [
        [
            n_units * (module.point.places[0].n_features + group.size)
            for (n_units,), group in pairs
        ]
        for pairs in map(zip, model.head_layer_sizes_, groups_of(model))
    ]
    extra = sum(map(sum, sizes))
    assert model.multiply_adds_.augmented - model.multiply_adds_.base == extra
    copied = pickle.loads(pickle.dumps(model.set_params(conditional=1)))
    np.testing.assert_array_equal(copied.predict_proba(X), model.predict_proba(X))


def test_what_becomes_of_the_base_later_changes_nothing(some_digits, base):
    X, y = some_digits
    model = SelfInformedClassifier(base, conditional=1, **HEADS, **FAST).fit(X, y)
    before = model.predict_proba(X)
    base.partial_fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_a_fitted_base_of_images_brings_their_shape(some_digits):
    X, y = some_digits
    base = StructuredClassifier(image_shape=(1, 8, 8), **FAST).fit(X, y)
    model = SelfInformedClassifier(base, **HEADS, **FAST).fit(X, y)
    assert model.input_shape_ == (1, 8, 8)
    assert model.multiply_adds_.base == 339944


def test_a_fitted_base_and_a_dtype_of_ones_own(some_digits, base):
    model = SelfInformedClassifier(base, dtype="float64", **HEADS, **FAST)
    model.fit(*some_digits)
    assert {p.dtype for p in model.module_.parameters()} == {torch.float64}
    assert {p.dtype for p in base.module_.parameters()} == {torch.float32}


# ---- skorch nets ---------------------------------------------------------------


def test_an_unfitted_skorch_net_gets_its_own_precision_and_class_numbers(some_digits):
    X, y = some_digits  # double precision
    names = np.array([f"d{i}" for i in range(10)])[y]
    torch.manual_seed(0)
    module = make_mlp(64, 10, (30,))
    settings = {"lr": 0.5, "max_epochs": 20, "train_split": None, "verbose": 0}
    net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **settings)
    model = SelfInformedClassifier(net, **HEADS, **FAST).fit(X, names)
    assert model.n_folds_ == 2
    assert model.score(X, names) > 0.8
    double = NeuralNetClassifier(
        module.double(), criterion=nn.CrossEntropyLoss, **settings
    )
    model = SelfInformedClassifier(double, **HEADS, **FAST).fit(X, names)
    assert model.score(X, names) > 0.8
    weights = [model.estimator_.module_[0].weight, model.module_.trunk[0].weight]
    assert [weight.dtype for weight in weights] == [torch.float64, torch.float32]


# ---- refusals --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (RandomForestClassifier(), "RandomForestClassifier has no torch module"),
        (LogisticRegression(), "LogisticRegression has no torch module"),
        (
            GridSearchCV(CGESClassifier(), {"alpha": [0.0, 0.1]}),
            "GridSearchCV has no torch module",
        ),
        (StructuredRegressor(), "StructuredRegressor is a regressor"),
        (NeuralNetRegressor(make_mlp(64, 1)), "NeuralNetRegressor is a regressor"),
        (FrozenEstimator(StructuredClassifier()), "is not fitted; fit it"),
        (SelfInformedClassifier(), "use n_rounds"),
        (make_pipeline(StandardScaler(), CGESClassifier()), "is a Pipeline"),
        (StructuredClassifier(nn.Conv2d(1, 2, 3)), "does not take samples"),
    ],
    ids=str,
)
def test_what_cannot_get_heads_is_refused_before_any_training(
    some_digits, estimator, message, monkeypatch
):
    def fit(*args, **params):
        raise AssertionError("trained in vain")

    for kind in (
        RandomForestClassifier,
        LogisticRegression,
        GridSearchCV,
        NeuralNetRegressor,
        StructuredRegressor,
        StructuredClassifier,
    ):
        monkeypatch.setattr(kind, "_fit" if "Struct" in kind.__name__ else "fit", fit)
    with pytest.raises(ValueError, match=message):
        SelfInformedClassifier(estimator, **FAST).fit(*some_digits)


def test_a_fitted_estimator_without_a_network_is_refused(some_digits):
    fitted = LogisticRegression(max_iter=2000).fit(*some_digits)
    with pytest.raises(ValueError, match="LogisticRegression has no torch module"):
        SelfInformedClassifier(fitted).fit(*some_digits)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was(some_digits, base):
    X, y = some_digits
    model = SelfInformedClassifier(base, **HEADS, **FAST).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="non-finite"):
        model.set_params(learning_rate=1e30).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_a_base_of_other_classes_is_an_error(some_digits, base):
    X, y = some_digits
    with pytest.raises(
        ValueError, match=r"fitted for the classes \[0, .*y holds \['0'"
    ):
        SelfInformedClassifier(base).fit(X, y.astype(str))


def test_a_base_of_other_samples_is_an_error(some_digits, base):
    X, y = some_digits
    with pytest.raises(ValueError, match="fitted for 64 features, but X has 63"):
        SelfInformedClassifier(base).fit(X[:, 1:], y)
    net = NeuralNetClassifier(make_mlp(64, 10), max_epochs=1, train_split=None)
    net.set_params(verbose=0).fit(X.astype(np.float32), y.astype(np.int64))
    with pytest.raises(ValueError, match=r"does not take samples of shape \(63,\)"):
        SelfInformedClassifier(net).fit(X[:, 1:], y)


def test_weights_for_a_base_that_takes_none_are_an_error(some_digits):
    X, y = some_digits[0].astype(np.float32), some_digits[1].astype(np.int64)
    net = NeuralNetClassifier(make_mlp(64, 10), max_epochs=1, verbose=0)
    with pytest.raises(ValueError, match="takes no sample_weight"):
        SelfInformedClassifier(net).fit(X, y, sample_weight=np.ones(600))


def test_convolutional_heads_at_places_of_their_own(some_digits, tmp_path):
    X, y = some_digits
    model = SelfInformedClassifier(
        image_shape=(1, 8, 8),
        head_kernel_size=3,
        layer=["auto", "1"],
        n_rounds=2,
        budget=0.2,
        cv=None,
        **FAST,
    ).fit(X, y)
    places = model.module_.point.places
    assert [(p.layer, p.shape) for p in places] == [
        ("5", (64, 2, 2)),
        ("1", (32, 8, 8)),
    ]
    cost = model.multiply_adds_
    assert cost.base < cost.augmented <= 1.4 * cost.base + 9 * 64 * 32 * 2 * 10
    expected = model.predict_proba(X)
    model.save(tmp_path / "model")
    for other in (
        SelfInformedClassifier.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(model)),
    ):
        np.testing.assert_allclose(other.predict_proba(X), expected, rtol=1e-5)
    assert model.set_params(conditional=1).count_multiply_adds(X) < cost.augmented
    again = model.set_params(conditional=None, warm_start=True).fit(X, y)
    assert again.module_.point.places == places


def test_any_end_through_a_file_and_back(some_digits, tmp_path):
    X, y = some_digits
    net = torch.nn.utils.parametrizations.weight_norm(nn.Linear(16, 10))
    for end in (
        nn.Sequential(net),
        nn.Sequential(nn.Linear(16, 10), nn.Hardtanh(-9, 9)),
    ):
        module = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), *end)
        model = SelfInformedClassifier(module=module, cv=None, **HEADS, **FAST).fit(
            X, y
        )
        model.save(tmp_path / "model")
        model.set_params(conditional=1)
        loaded = SelfInformedClassifier.load(tmp_path / "model", module)
        loaded.set_params(conditional=1)
        np.testing.assert_allclose(
            loaded.predict_proba(X), model.predict_proba(X), rtol=1e-5
        )
