"""Regularizers of the heads' training, attached to the network with its heads."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_structreg import SelfInformedClassifier
from sklearn_structreg.baselines import L2SP, DropBlock, Dropout
from sklearn_structreg.cges import CGES
from sklearn_structreg.core import StructuredClassifier, make_mlp
from sklearn_structreg.core.insertion import inserted_layers

HEADS = {
    "n_clusters": 3,
    "head_layer_sizes": (8,),
    "head_epochs": 1.0,
    "max_epochs": 4,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def some_digits(digits):
    return digits[0][:600], digits[1][:600]


@pytest.fixture(scope="module")
def base(some_digits):
    return StructuredClassifier(max_epochs=5, random_state=0).fit(*some_digits)


def zeros(parameter):
    return float((parameter == 0).float().mean())


def test_a_penalty_acts_on_the_weights_that_learn(some_digits, base):
    X, y = some_digits
    settings = HEADS | {"fresh_classifier": True}
    model = SelfInformedClassifier(base, regularizers=[CGES(3)], **settings)
    assert list(model.fit(X, y).regularizers_) == ["cges"]
    plain = SelfInformedClassifier(base, **settings).fit(X, y)
    trunk = list(model.module_.trunk.parameters())
    assert len(trunk) == 2
    for new, old in zip(trunk, base.module_.parameters(), strict=False):
        assert torch.equal(new, old)
    for head, other in zip(
        model.module_.rounds[0].heads, plain.module_.rounds[0].heads, strict=True
    ):
        assert zeros(head.hidden[0].weight) > zeros(other.hidden[0].weight)
    assert model.score(X, y) > 0.5


def test_off_is_off(some_digits, base):
    X, y = some_digits
    plain = SelfInformedClassifier(base, n_rounds=2, fine_tune=True, **HEADS).fit(X, y)
    off = SelfInformedClassifier(
        base,
        n_rounds=2,
        fine_tune=True,
        regularizers=[CGES(0), Dropout(0), L2SP(0)],
        **HEADS,
    ).fit(X, y)
    np.testing.assert_array_equal(off.predict_proba(X), plain.predict_proba(X))


def test_fine_tuning_regularizes_all_weights(some_digits, base):
    model = SelfInformedClassifier(
        base, fine_tune=True, regularizers=[CGES(1.0, penalty="l1", ramp=0)], **HEADS
    ).fit(*some_digits)
    first = next(model.module_.trunk.parameters())
    assert zeros(first) > 0.1 > zeros(base.module_[0].weight)


def test_inserted_layers_are_there_once_and_go_when_simplified(some_digits, base):
    X, y = some_digits
    model = SelfInformedClassifier(
        base, n_rounds=3, conditional=2, regularizers=[Dropout(0.5)], **HEADS
    ).fit(X, y)
    counts = [len(inserted_layers(heads)) for heads in model.module_.rounds]
    assert counts[0] == counts[-1] > 0
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.predict_proba(X), model.predict_proba(X))
    plain, x = model.simplified_module(), torch.tensor(X[:9]).float()
    assert not inserted_layers(plain)
    assert torch.equal(plain(x), model.module_.eval()(x))
    assert len(inserted_layers(model.module_)) >= 3 * counts[0]


def test_a_plain_network_of_its_own_is_regularized_too(some_digits):
    model = SelfInformedClassifier(regularizers=[("d", Dropout(0.3))], **HEADS)
    model.fit(*some_digits)
    assert list(model.estimator_.regularizers_) == list(model.regularizers_) == ["d"]
    assert model.set_params(regularizers__d__drop_rate=0.1).fit(*some_digits) is model
    assert model.regularizers_["d"].drop_rate == 0.1


def test_a_warm_start_trains_on_with_the_regularizers(some_digits, base):
    X, y = some_digits
    model = SelfInformedClassifier(
        base, warm_start=True, regularizers=[CGES(0.02)], **HEADS
    ).fit(X, y)
    model.set_params(regularizers__cges__alpha=0.0).fit(X, y)
    assert model.n_iter_ == 8
    assert model.regularizers_["cges"].alpha == 0.0
    before = model.predict_proba(X)
    for change in ({"n_clusters": 2}, {"head_layer_sizes": (9,)}, {"source": "random"}):
        name = next(iter(change))
        old = getattr(model, name)
        with pytest.raises(ValueError, match=f"{name} cannot change from"):
            model.set_params(**change).fit(X, y)
        model.set_params(**{name: old})
        np.testing.assert_array_equal(model.predict_proba(X), before)


def test_batch_normalization_of_a_frozen_trunk_stays_as_it_is(some_digits):
    X, y = some_digits
    net = nn.Sequential(nn.Linear(64, 20), nn.BatchNorm1d(20), *make_mlp(20, 10, (9,)))
    base = StructuredClassifier(net, max_epochs=3, random_state=0).fit(X, y)
    before = base.module_[1].running_mean
    model = SelfInformedClassifier(
        base, layer="1", regularizers=[L2SP(0.1), Dropout(0.2)], **HEADS
    ).fit(X, y)
    assert torch.equal(model.module_.trunk[1].running_mean, before)


def test_compaction_takes_out_units_that_are_off(some_digits):
    X, y = some_digits
    model = SelfInformedClassifier(
        fine_tune=True, regularizers=[CGES(1, penalty="group")], **HEADS
    ).fit(X, y)
    smaller = model.compact()
    np.testing.assert_allclose(
        smaller.decision_function(X), model.decision_function(X), atol=1e-5
    )
    report = model.size_report(X, n_repeats=0)
    assert report.n_compact < report.n_parameters
    n_left = sum(p.numel() for p in smaller.module_.parameters())
    assert report.n_compact == n_left
    assert smaller.partial_fit(X, y).n_iter_ == model.n_iter_ + 1


def test_a_regularizer_of_the_input_is_refused(some_digits, base):
    model = SelfInformedClassifier(base, regularizers=[DropBlock(0.1)], **HEADS)
    with pytest.raises(ValueError, match="heads read the features of a frozen network"):
        model.fit(*some_digits)


def test_a_dataset_is_regularized_as_an_array_is(some_digits, base):
    X, y = some_digits
    dataset = TensorDataset(torch.tensor(X), torch.tensor(y))
    model = SelfInformedClassifier(base, regularizers=[Dropout(0.2)], **HEADS)
    names = [list(inserted_layers(model.fit(X, y).module_))]
    names.append(list(inserted_layers(model.fit(dataset).module_)))
    assert names[0] == names[1]
    assert all(name.startswith(("classifier", "rounds")) for name in names[0])
