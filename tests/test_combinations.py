"""Regularizers alone, pairwise and all at once: off, trained, pickled, compacted."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from rooms import ESTIMATORS, REGULARIZERS
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_structreg import CGESClassifier
from sklearn_structreg.baselines import (
    L2SP,
    DropBlock,
    Dropout,
    SpatialDropout,
    StochasticDepth,
)
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES, IterativePruning
from sklearn_structreg.compaction import compact
from sklearn_structreg.core import (
    RegularizerCallback,
    StructuredClassifier,
    StructuredRegressor,
    make_mlp,
)
from sklearn_structreg.core.state_files import encode, read_state, write_state
from sklearn_structreg.dropcluster import DropCluster, DropCluster2d

FAST = {"max_epochs": 4, "hidden_layer_sizes": (20,), "random_state": 0}
IMAGES = {"image_shape": (1, 8, 8), **FAST}
ON_ROWS = [
    IterativePruning(0.3),
    CGES(0.02, penalty="group"),
    Blockout(3),
    DropCluster(0.2, start_epoch=1, update_every=1),
    Dropout(0.2),
    L2SP(0.01),
]
ON_MAPS = [SpatialDropout(0.2), DropBlock(0.2)]
OFF = {
    CGES: {"alpha": 0.0},
    IterativePruning: {"target_density": 1.0},
    Blockout: {"init_probability": 1.0},
    DropCluster: {"drop_rate": 0.0, "unstructured": None},
    L2SP: {"alpha": 0.0},
}


@pytest.fixture(scope="module")
def images(digits):
    X, y = digits
    return X[:300].copy(), y[:300].copy()


class Branched(nn.Module):
    """A small residual network on flat rows."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch = nn.Linear(64, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(x + self.branch(x))


def weights(estimator):
    return [p.detach() for p in estimator.module_.parameters()]


def same(one, two):
    return all(
        torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True)
    )


@pytest.mark.parametrize("kind", REGULARIZERS, ids=lambda kind: kind.__name__)
def test_off_is_the_plain_network_bit_for_bit(images, kind):
    module = Branched() if kind is StochasticDepth else "auto"
    params = dict(FAST if kind is StochasticDepth else IMAGES, module=module)
    off = kind(**OFF.get(kind, {"drop_rate": 0.0}))
    plain = StructuredClassifier(**params).fit(*images)
    assert same(plain, StructuredClassifier(regularizers=[off], **params).fit(*images))
    on = StructuredClassifier(regularizers=[ALL[kind]], **params).fit(*images)
    assert not same(plain, on)


ALL = {type(r): r for r in [*ON_ROWS, *ON_MAPS, StochasticDepth(0.5)]}


def test_every_regularizer_is_tried_here():
    assert set(ALL) == set(REGULARIZERS)


def combinations():
    for pair in itertools.permutations(ON_ROWS, 2):
        yield FAST, pair
    for pair in itertools.combinations([*ON_ROWS, *ON_MAPS], 2):
        yield IMAGES, pair
    channels = Blockout(3, layers="all")
    yield IMAGES, [CGES(0.02, penalty="group"), channels, DropBlock(0.2)]
    yield IMAGES, [channels, IterativePruning(0.3), DropCluster(0.2), L2SP(0.01)]
    yield FAST, ON_ROWS
    yield IMAGES, [*ON_ROWS, *ON_MAPS]
    yield IMAGES, [*ON_ROWS, *ON_MAPS][::-1]


@pytest.mark.parametrize(
    ("params", "regularizers"),
    [
        pytest.param(
            params,
            regularizers,
            id=("map-" if params is IMAGES else "row-")
            + "-".join(type(r).__name__ for r in regularizers),
        )
        for params, regularizers in combinations()
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_together_they_train_pickle_resume_and_compact(images, params, regularizers):
    X, y = images
    model = StructuredClassifier(regularizers=list(regularizers), **params).fit(X, y)
    assert np.isfinite(model.history_[:, "train_loss"]).all()
    expected = model.decision_function(X)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.decision_function(X), expected)

    plain = model.simplified_module()
    rows = torch.from_numpy(X).float().reshape(-1, *model.input_shape_)
    for network in (plain, model.compact().simplified_module()):
        with torch.no_grad():
            outputs = network.eval()(rows).double().numpy()
        np.testing.assert_allclose(outputs, expected, atol=1e-4)
    ours = {
        part
        for part in plain.modules()
        if not type(part).__module__.startswith("torch")
    }
    assert not ours

    model.set_params(warm_start=True).fit(X, y)
    loaded.set_params(warm_start=True).fit(X, y)
    assert same(model, loaded)
    assert model.n_iter_ == 8
    model.partial_fit(X[:50], y[:50])
    assert set(model.regularizers_) == set(loaded.regularizers_)


@pytest.mark.parametrize(
    ("params", "regularizers"),
    [(IMAGES, [r]) for r in ON_ROWS]
    + [(IMAGES, [*ON_ROWS, *ON_MAPS]), (FAST, [StochasticDepth(0.5), *ON_ROWS])],
    ids=lambda value: type(value[0]).__name__ if isinstance(value, list) else "",
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:Only layers that run once")  # of Blockout's
def test_state_dict_and_fitted_state_are_all_there_is(
    images, tmp_path, params, regularizers
):
    params = params | {"regularizers": list(regularizers)}
    if type(regularizers[0]) is StochasticDepth:
        params["module"] = Branched()
    model = StructuredClassifier(**params).fit(*images)
    parts = {name: r.fitted_state() for name, r in model.regularizers_.items()}
    write_state(tmp_path / "file", {"net": model.module_.state_dict(), "parts": parts})

    params |= {"random_state": 1, "max_epochs": 2}
    other = StructuredClassifier(**params).fit(*images)
    state = read_state(tmp_path / "file")
    other.module_.load_state_dict(state["net"])
    for name, part in state["parts"].items():
        other.regularizers_[name].restore(part)

    rows = torch.from_numpy(images[0][:32]).float().reshape(-1, *model.input_shape_)
    for mode in (True, False):
        outputs = []
        for net in (model.net_, other.net_):
            torch.manual_seed(0)
            optimizer = torch.optim.SGD(net.module_.parameters(), 0.1)
            optimizer.zero_grad()
            loss = net.module_.train(mode)(rows).square().mean()
            loss = loss + (net.regularizers.penalty(net.module_) or 0)
            if mode:
                loss.backward()
                optimizer.step()
                net.regularizers.after_step(net.module_, optimizer)
            outputs.append(loss.detach())
        assert torch.equal(*outputs)
    assert same(model, other)
    for name, part in parts.items():
        here, there = {}, {}
        restored = encode(other.regularizers_[name].fitted_state(), there)
        assert encode(part, here) == restored
        assert all(torch.equal(here[key], there[key]) for key in here)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_all_at_once_for_numbers(images):
    X, y = images
    y = np.column_stack([y, -2.0 * y])
    everything = [*ON_ROWS, *ON_MAPS]
    model = StructuredRegressor(regularizers=everything, **IMAGES).fit(X, y)
    assert model.predict(X).shape == y.shape
    rows = torch.from_numpy(X).float().reshape(-1, 1, 8, 8)
    with torch.no_grad():
        outputs = model.compact().module_(rows).numpy() * model.target_scale_
    np.testing.assert_allclose(
        outputs + model.target_mean_, model.predict(X), atol=1e-3
    )


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda kind: kind.__name__)
def test_every_estimator_takes_more_regularizers(images, estimator):
    X, y = images
    model = estimator(regularizers=[Dropout(0.3), L2SP(0.1)], **FAST).fit(X, y)
    assert list(model.regularizers_)[-2:] == ["dropout", "l2sp"]
    assert not same(model, estimator(**FAST).fit(X, y))
    assert model.score(X, y) > (0.25 if is_classifier(model) else 0.0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_strength_in_a_list_can_be_searched(images):
    model = StructuredClassifier(regularizers=[("sparse", CGES()), Dropout()], **FAST)
    grid = {
        "regularizers__sparse__alpha": [0.0, 10.0],
        "regularizers__dropout": [L2SP()],
    }
    search = GridSearchCV(model, grid, cv=2).fit(*images)
    assert search.best_params_["regularizers__sparse__alpha"] == 0.0
    assert list(search.best_estimator_.regularizers_) == ["sparse", "dropout"]
    assert model.get_params()["regularizers__sparse__alpha"] == CGES().alpha


def test_two_of_a_kind(images):
    model = StructuredClassifier(regularizers=[L2SP(1.0), L2SP(0.1)], **FAST)
    assert list(model.fit(*images).regularizers_) == ["l2sp-1", "l2sp-2"]
    model = StructuredClassifier(regularizers=[Blockout(2), Blockout(3)], **FAST)
    with pytest.raises(ValueError, match="Blockout"):
        model.fit(*images)


def test_an_estimators_own_comes_first(images):
    model = CGESClassifier(alpha=0.1, regularizers=[CGES(penalty="l1")], **FAST)
    fitted = model.fit(*images).regularizers_
    assert list(fitted)[-2:] == ["cges", "cges-2"]
    assert fitted["cges"].penalty == model.penalty
    assert fitted["cges-2"].penalty == "l1"


def test_other_regularizers_cannot_go_on(images):
    model = StructuredClassifier(regularizers=[Blockout(2)], warm_start=True, **FAST)
    model.fit(*images).set_params(regularizers=[Blockout(2), CGES()])
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="goes on with the network's own regular"):
            method(*images)


def test_stochastic_depth_beside_the_others(images):
    others = [CGES(0.01), IterativePruning(0.5), Dropout(0.1), L2SP(0.1)]
    for regularizers in ([StochasticDepth(0.5), *others], [*others, StochasticDepth()]):
        model = StructuredClassifier(Branched(), regularizers=regularizers, **FAST)
        X, y = images
        expected = model.fit(X, y).decision_function(X)
        with torch.no_grad():
            outputs = model.compact().module_(torch.from_numpy(X).float()).numpy()
        np.testing.assert_allclose(outputs, expected, atol=1e-4)
    with pytest.raises(ValueError, match="[Nn]o residual branch"):
        StructuredClassifier(regularizers=[StochasticDepth()], **FAST).fit(*images)


def test_a_layer_of_ours_in_the_users_own_network_is_compacted(images):
    X, y = images
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        DropCluster2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(216, 10),
    )
    model = StructuredClassifier(net, regularizers=[CGES(0.05)], **IMAGES).fit(X, y)
    rows = torch.from_numpy(X).float().reshape(-1, 1, 8, 8)
    smaller = compact(model.module_, rows[:2])
    with torch.no_grad():
        outputs = smaller(rows).numpy()
    np.testing.assert_allclose(outputs, model.decision_function(X), atol=1e-4)


@pytest.mark.parametrize("kind", [CGES, Blockout, DropCluster, Dropout, L2SP])
def test_each_works_in_a_skorch_net(images, kind):
    X, y = images
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        make_mlp(64, 10, (20,)),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__param_groups=[("0.*", {"lr": 1e-3})],
        lr=0.01,
        max_epochs=6,
        verbose=0,
        callbacks=[("own", RegularizerCallback(clone(ALL[kind])))],
    ).fit(X.astype("float32"), y)
    losses = net.history[:, "train_loss"]
    assert losses[-1] < losses[0]
    held = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.module_.parameters()}
