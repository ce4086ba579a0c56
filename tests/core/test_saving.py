"""Files of estimators: modules of one's own, other versions, refusals."""

import copy
import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.utils import check_random_state
from skorch.callbacks import EpochTimer, Freezer
from torch import nn

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
    StructuredRegressor,
)
from sklearn_structreg.core import Regularizer, versions
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.state_files import read_state, write_state

FAST = {"max_epochs": 2, "hidden_layer_sizes": (8,), "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Wide(nn.Module):
    """A network of the user's own, with lazy layers and tied weights."""

    def __init__(self, input_shape, n_outputs, width=8, activation=nn.ReLU):
        super().__init__()
        self.first, self.norm = nn.LazyLinear(width), nn.BatchNorm1d(width)
        self.second = self.third = nn.Linear(width, width)
        self.activation, self.last = activation(), nn.Linear(width, n_outputs)

    def forward(self, x):
        x = self.activation(self.norm(self.first(x)))
        return self.last(self.third(self.second(x)))


def wide(input_shape, n_outputs):
    return Wide(input_shape, n_outputs)


def sequential(activation=nn.ReLU, width=8):
    return nn.Sequential(nn.Linear(4, width), activation(), nn.Linear(width, 3))


@component
class Box(Regularizer):
    """A regularizer of the user's own."""

    bound: float = parameter(0.5, [float], "float", "Largest magnitude.")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def same(one, two):
    states = one.module_.state_dict(), two.module_.state_dict()
    return [*states[0]] == [*states[1]] and all(
        torch.equal(a, states[1][name]) for name, a in states[0].items()
    )


# ---- networks ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "params"),
    [
        (sequential(), {}),
        (Wide, {"module_params": {"width": 6, "activation": nn.Tanh}}),
        (wide, {}),
        (wide, {"standardize": True}),
    ],
    ids=["instance", "class", "factory", "standardized"],
)
def test_a_module_of_ones_own_is_passed_to_load(blobs, path, module, params):
    X, y = blobs
    model = StructuredClassifier(module, **params, **FAST).fit(X, y)
    model.save(path)
    loaded = StructuredClassifier.load(path, module=module)
    assert loaded.module is module
    assert loaded.module_params == model.module_params
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    loaded.set_params(warm_start=True).fit(X, y)
    assert same(loaded, model.set_params(warm_start=True).fit(X, y))
    with pytest.raises(ValueError, match=r"module of your own.*load\(path, module="):
        StructuredClassifier.load(path)


def test_a_module_that_does_not_fit(blobs, path):
    StructuredClassifier(sequential(), **FAST).fit(*blobs).save(path)
    for module, reason in (
        (sequential(width=9), "size mismatch for 0.weight"),
        (sequential(nn.Tanh), "layer '1' is Tanh, and was ReLU"),
        (sequential()[:1], r"returns an output of shape \(2, 8\)"),
        (nn.Linear(4, 3), "layer '' is Linear, and was Sequential"),
        (nn.Linear(5, 3), r"does not take samples of shape \(4,\)"),
    ):
        with pytest.raises(ValueError, match=reason):
            StructuredClassifier.load(path, module=module)
    StructuredClassifier(**FAST).fit(*blobs).save(path)
    with pytest.raises(ValueError, match="network of this package; leave module out"):
        StructuredClassifier.load(path, module=sequential())


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_a_compacted_network(digits, path, images, own):
    X, y = digits
    params = {"alpha": 1.0, "penalty": "group", "max_epochs": 12, "random_state": 0}
    if images:
        params["image_shape"] = (1, 8, 8)
    if own:
        params["module"] = nn.Sequential(
            *([nn.Conv2d(1, 8, 3), nn.PReLU(8), nn.Conv2d(8, 8, 3, groups=8)]),
            *([nn.BatchNorm2d(8), nn.GroupNorm(4, 8), nn.Flatten()]),
            nn.Linear(128, 10, bias=False),
        )
        params["module"] = params["module"] if images else nn.Linear(64, 10)
    model = CGESClassifier(**params).fit(X, y)
    n_before = model.n_parameters_
    model = model.compact()
    assert own or model.n_parameters_ < n_before
    model.save(path)
    loaded = CGESClassifier.load(path, params.get("module"))
    assert str(loaded.module_) == str(model.module_)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    for each in (model, loaded):
        each.partial_fit(X, y)
    assert same(loaded, model)


def test_frozen_weights_stay_frozen(blobs, path):
    X, y = blobs
    model = StructuredClassifier(callbacks=[Freezer("0.*")], **FAST).fit(X, y)
    model.save(path)
    loaded = StructuredClassifier.load(path)
    assert loaded.callbacks is None
    assert [p.requires_grad for p in loaded.module_.parameters()] == [False] * 2 + [
        True
    ] * 2


def test_parameters_set_after_the_fit_are_those_of_now(blobs, path):
    X, y = blobs
    model = StructuredClassifier(**FAST).fit(X, y)
    model.set_params(hidden_layer_sizes=(5,), learning_rate=0.5, max_epochs=4)
    model.save(path)
    loaded = StructuredClassifier.load(path)
    assert loaded.get_params() == model.get_params()
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    for each in (model, loaded):
        with pytest.raises(ValueError, match="hidden_layer_sizes cannot change"):
            each.partial_fit(X, y)
        each.fit(X, y)
    assert same(model, loaded)


# ---- code is left out ----------------------------------------------------------


def half(optimizer, n_epochs):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


class OwnLoss(nn.Module):
    def forward(self, outputs, target):
        return nn.functional.cross_entropy(outputs, target, reduction="none")


class OwnSGD(torch.optim.SGD):
    pass


def test_code_is_back_at_its_default(blobs, path):
    X, y = blobs
    code = {
        "callbacks": [EpochTimer()],
        "criterion": OwnLoss(),
        "lr_schedule": half,
        "optimizer": OwnSGD,
    }
    model = StructuredClassifier(**code, **FAST).fit(X, y).partial_fit(X, y)
    model.save(path)
    loaded = StructuredClassifier.load(path)
    default = StructuredClassifier().get_params()
    assert loaded.get_params() == model.get_params() | {n: default[n] for n in code}
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    loaded.partial_fit(X, y)


def numpy_numbers():
    return check_random_state(None).get_state()[1].copy()


def test_nothing_global_changes_and_routing_stays(blobs, path):
    with sklearn.config_context(enable_metadata_routing=True):
        model = StructuredClassifier(**FAST).set_fit_request(sample_weight=True)
    model.fit(*blobs).save(path)
    torch_state, numpy_state = torch.get_rng_state(), numpy_numbers()
    loaded = StructuredClassifier.load(path)
    loaded.save(path)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(numpy_numbers(), numpy_state)
    assert loaded.get_metadata_routing().fit.requests["sample_weight"]


# ---- refusals ------------------------------------------------------------------


def test_what_no_file_can_hold(blobs, digits, path):
    model = StructuredClassifier(regularizers=[Box()], **FAST).fit(*blobs)
    with pytest.raises(TypeError, match=r"regularizers holds Box\(\), which no file"):
        model.save(path)
    model = StructuredClassifier(**FAST).fit(*blobs)
    model.module_[1] = nn.Tanh()
    with pytest.raises(ValueError, match="layer '1' is ReLU, and was Tanh.*pickle"):
        model.save(path)
    model.history_.record("odd", object())
    model.module_[1] = nn.ReLU()
    with pytest.raises(TypeError, match=r"'history'\]\[1\]\['odd'\] is of type object"):
        model.save(path)
    with pytest.raises(NotFittedError):
        StructuredClassifier().save(path)
    assert not path.exists()


def test_heads_on_an_estimator_of_another_package(digits, path):
    from skorch import NeuralNetClassifier

    X, y = digits[0][:300], digits[1][:300]
    base = NeuralNetClassifier(
        nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)),
        criterion=nn.CrossEntropyLoss,
        max_epochs=1,
        verbose=0,
    )
    model = SelfInformedClassifier(base, head_layer_sizes=(4,), max_epochs=1).fit(X, y)
    with pytest.raises(TypeError, match="estimator_ is a NeuralNetClassifier, which"):
        model.save(path)


def test_places_that_are_not_there(blobs, path):
    model = StructuredClassifier(**FAST).fit(*blobs)
    with pytest.raises(FileNotFoundError, match="no folder .*make it first"):
        model.save(path / "deeper" / "model")
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        model.save(path.parent)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        StructuredClassifier.load(path)


def test_other_classes_other_formats_other_files(blobs, path):
    model = CGESClassifier(**FAST).fit(*blobs)
    model.save(path)
    with pytest.raises(ValueError, match="holds a CGESClassifier; use CGESC.*load"):
        BlockoutClassifier.load(path)
    write_state(path, read_state(path) | {"format": 2})
    with pytest.raises(ValueError, match="has format 2.*update sklearn-structreg"):
        CGESClassifier.load(path)
    write_state(path, [1, 2])
    with pytest.raises(ValueError, match="holds no estimator"):
        CGESClassifier.load(path)
    torch.save(model.module_.state_dict(), path)
    with pytest.raises(ValueError, match="damaged or was not written by save"):
        CGESClassifier.load(path)


def test_a_file_makes_no_other_objects(blobs, path):
    StructuredClassifier(**FAST).fit(*blobs).save(path)
    state = read_state(path)
    for name in ("torch.nn.Linear", "RegularizerCallback", "os.system"):
        evil = {"__object__": "object", "name": name, "parameters": {}}
        state["parameters"]["criterion"] = evil
        write_state(path, state)
        with pytest.raises(ValueError, match=f"names {name}, which"):
            StructuredClassifier.load(path)


def test_a_flipped_bit_is_an_error(blobs, path):
    StructuredClassifier(**FAST).fit(*blobs).save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(8 * len(good), 50, replace=False):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="damaged"):
            StructuredClassifier.load(path)


# ---- versions ------------------------------------------------------------------


def test_another_version_warns_once_with_all_that_differs(digits, path, monkeypatch):
    X, y = digits[0][:200], digits[1][:200]
    model = SelfInformedClassifier(head_layer_sizes=(4,), **FAST).fit(X, y)
    model.save(path)
    monkeypatch.setattr(versions, "__version__", "0.2.0")
    monkeypatch.setattr(sklearn, "__version__", "9.9.9")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = SelfInformedClassifier.load(path)
    assert [each.category.__mro__[1] for each in caught] == [InconsistentVersionWarning]
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    assert "This SelfInformedClassifier was saved with sklearn-structreg 0.1.0" in text
    assert "(now 0.2.0), scikit-learn" in text
    assert "torch" not in text
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_another_build_of_torch_is_no_other_version(blobs, path, monkeypatch):
    model = StructuredClassifier(**FAST).fit(*blobs)
    model.save(path)
    release = torch.__version__.partition("+")[0]
    monkeypatch.setattr(torch, "__version__", f"{release}+cu999")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = StructuredClassifier.load(path)
    assert not caught
    np.testing.assert_array_equal(loaded.predict(blobs[0]), model.predict(blobs[0]))


def test_an_optimizer_goes_on_in_its_own_precision(blobs, path):
    """NAdam holds single numbers that torch would round as it does the weights."""
    settings = {"optimizer": torch.optim.NAdam, "dtype": "float64", "random_state": 0}
    model = StructuredClassifier(**settings)
    for _ in range(3):
        model.partial_fit(*blobs, classes=[0, 1, 2])
    model.save(path)
    loaded = StructuredClassifier.load(path)
    for each in (model, loaded):
        each.partial_fit(*blobs).partial_fit(*blobs)
    np.testing.assert_array_equal(
        loaded.decision_function(blobs[0]), model.decision_function(blobs[0])
    )


def test_a_regressor_predicts_in_the_units_of_its_targets(path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = 1e6 + 1e3 * X @ [1.0, -2.0, 0.5]
    model = StructuredRegressor(max_epochs=5, random_state=0).fit(X, y)
    model.save(path)
    loaded = StructuredRegressor.load(path)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.predict(X).ndim == 1
    assert copy.deepcopy(loaded).n_iter_ == 5
