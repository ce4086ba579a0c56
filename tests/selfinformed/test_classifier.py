"""SelfInformedClassifier: heads where asked for, and the base alone where not."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_structreg import ConfusionSpectralPartitioner, SelfInformedClassifier
from sklearn_structreg.core import StructuredClassifier, make_mlp

FAST = {"max_epochs": 3, "random_state": 0}
HEADS = {"n_clusters": 3, "head_layer_sizes": (8,), "head_epochs": 1.0}
EXACT = {"dtype": "float64", "batch_size": None, "max_epochs": 5, "random_state": 0}


def states(module):
    return dict(module.state_dict())


@pytest.fixture
def some_digits(digits):
    return digits[0][:600], digits[1][:600]


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


@pytest.fixture
def base(some_digits):
    return StructuredClassifier(max_epochs=5, random_state=0).fit(*some_digits)


# ---- off -----------------------------------------------------------------------


@pytest.mark.parametrize("cv", [None, 2])
@pytest.mark.parametrize("shape", [None, (1, 8, 8)])
def test_no_groups_is_the_plain_net_bit_for_bit(some_digits, shape, cv):
    X, y = some_digits
    settings = {"image_shape": shape, **FAST}
    plain = StructuredClassifier(**settings).fit(X, y)
    off = SelfInformedClassifier(n_clusters=0, cv=cv, **settings).fit(X, y)
    np.testing.assert_array_equal(off.predict_proba(X), plain.predict_proba(X))
    assert off.multiply_adds_.base == off.multiply_adds_.augmented
    assert (off.partition_, off.n_clusters_, off.top_k_) == (None, 0, None)
    assert off.n_folds_ == 0
    on = SelfInformedClassifier(**HEADS, **settings).fit(X, y)
    assert not np.array_equal(on.predict_proba(X), plain.predict_proba(X))


def test_no_groups_and_a_fitted_base_are_that_base(some_digits, base):
    X, _ = some_digits
    off = SelfInformedClassifier(FrozenEstimator(base), n_clusters=0)
    off.fit(*some_digits)
    np.testing.assert_array_equal(off.predict_proba(X), base.predict_proba(X))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"fine_tune": True},
        {"hidden_layer_sizes": ()},
        {"image_shape": (1, 8, 8), "fine_tune": True},
    ],
)
def test_heads_read_raw_samples_standardized(some_digits, params):
    """Whatever the offset; heads may read the input itself, and a trunk may learn."""
    X, y = 1e3 * some_digits[0] + 1e9, some_digits[1]
    model = SelfInformedClassifier(**HEADS, **FAST | {"max_epochs": 8} | params)
    assert model.fit(X, y).score(X, y) > 0.8
    X = 255 * some_digits[0]
    expected = model.fit(X, y).decision_function(X)
    rows = torch.from_numpy(X).float().reshape(-1, *model.input_shape_)
    with torch.no_grad():
        for network in (
            model.module_,
            model.simplified_module(),
            model.compact().module_,
        ):
            np.testing.assert_allclose(network(rows), expected, atol=1e-4)


# ---- groups --------------------------------------------------------------------


def test_groups_come_from_the_confusions_in_the_training(some_digits, base):
    X, y = some_digits
    names = np.array([f"d{i}" for i in range(10)])
    model = SelfInformedClassifier(
        StructuredClassifier(max_epochs=3, random_state=1), cv=None, **HEADS
    ).set_params(max_epochs=1, random_state=0)
    model.fit(X, names[y])
    scores = model.estimator_.decision_function(X)
    partitioner = ConfusionSpectralPartitioner(3, classes=names, random_state=0)
    partitioner.fit(scores, names[y])
    np.testing.assert_allclose(
        model.partition_.confusion_.toarray(), partitioner.confusion_.toarray()
    )
    guessed = scores.argmax(axis=1)
    for c in range(10):
        missed = np.mean(guessed[y == c] != c)
        assert model.partition_.miss_rate_[c] == pytest.approx(missed)
    assert sorted(np.concatenate(model.partition_.clusters_)) == sorted(names)
    assert model.n_clusters_ == 3
    assert model.top_k_ == 2


@pytest.mark.parametrize("kind", ["", "_codetection"])
def test_the_random_control_keeps_the_sizes_and_draws_the_members(
    some_digits, base, kind
):
    fitted = {}
    for source in (kind[1:] or "confusion", f"random{kind}"):
        model = SelfInformedClassifier(base, source=source, **HEADS, **FAST)
        model.set_params(head_allocation="equal")
        fitted[source] = model.fit(*some_digits)
    found, drawn = (model.partition_ for model in fitted.values())
    sizes = [[group.size for group in p.groups_] for p in (found, drawn)]
    assert sizes[0] == sizes[1]
    assert not np.array_equal(found.labels_, drawn.labels_)
    costs = {model.multiply_adds_ for model in fitted.values()}
    assert len(costs) == 1


def test_rounds_add_heads_and_freeze_the_last_ones(some_digits, base):
    model = SelfInformedClassifier(base, n_rounds=3, **HEADS, **FAST)
    model.fit(*some_digits)
    assert len(model.module_.rounds) == len(model.partitions_) == 3
    assert model.partition_ is model.partitions_[-1]
    assert model.n_iter_ == 9
    one = SelfInformedClassifier(base, **HEADS, **FAST).fit(*some_digits)
    first, only = (m.module_.rounds[0].heads[0].hidden for m in (model, one))
    assert torch.equal(first[0].weight, only[0].weight)
    assert model.multiply_adds_.augmented > one.multiply_adds_.augmented


@pytest.mark.parametrize("allocation", ["misses", "equal", "size", "difficulty"])
def test_heads_share_the_units_out(some_digits, base, allocation):
    model = SelfInformedClassifier(
        base, n_clusters=3, head_layer_sizes=(40,), head_allocation=allocation, **FAST
    ).fit(*some_digits)
    units = [head.output.in_features for head in model.module_.rounds[0].heads]
    missed = [model.partition_.miss_rate_[g] for g in model.partition_.groups_]
    demands = {
        "misses": [rates.sum() for rates in missed],
        "equal": [1, 1, 1],
        "size": [len(rates) for rates in missed],
        "difficulty": [rates.mean() for rates in missed],
    }[allocation]
    expected = np.maximum(1, np.round(120 * np.array(demands) / np.sum(demands)))
    assert units == expected.astype(int).tolist()
    assert [[(n,) for n in units]] == model.head_layer_sizes_


@pytest.mark.parametrize("budget", [0.1, 0.5])
def test_heads_keep_to_the_budget(some_digits, budget):
    X, y = some_digits
    model = SelfInformedClassifier(budget=budget, image_shape=(1, 8, 8), **FAST)
    cost = model.fit(X, y).multiply_adds_
    one_unit_each = model.n_clusters_ * (model.module_.point.places[0].n_features + 10)
    added = cost.augmented - cost.base
    assert budget * cost.base - one_unit_each < added <= budget * cost.base
    shallow = SelfInformedClassifier(budget=1e-9, **FAST).fit(X, y)
    assert shallow.head_layer_sizes_ == [[(1,)] * shallow.n_clusters_]


def test_all_rows_train_everything_and_are_scored_by_nets_that_have_not_seen_them(
    some_digits,
):
    X, y = some_digits
    model = SelfInformedClassifier(cv=3, **HEADS | FAST | {"head_epochs": 0.5})
    model.fit(X, y)
    plain = StructuredClassifier(**FAST).fit(X, y)
    np.testing.assert_array_equal(
        model.estimator_.predict_proba(X), plain.predict_proba(X)
    )
    assert (model.n_folds_, model.n_iter_, model.estimator_.n_iter_) == (3, 2, 3)
    total = model.partition_.confusion_.sum() * len(X)
    assert total == pytest.approx(2 * len(X))  # every row, with its two best classes
    seen = SelfInformedClassifier(cv=None, **HEADS | FAST).fit(X, y)
    assert seen.n_folds_ == 0
    assert model.partition_.miss_rate_.mean() > seen.partition_.miss_rate_.mean()


def test_an_eval_set_is_scored_by_the_network_itself(some_digits, digits, base):
    X, y = some_digits
    held, truth = digits[0][600:900], digits[1][600:900]
    model = SelfInformedClassifier(**HEADS | FAST).fit(X, y, eval_set=(held, truth))
    scores = model.estimator_.decision_function(held)
    partitioner = ConfusionSpectralPartitioner(3, random_state=0).fit(scores, truth)
    counts = [p.confusion_.toarray() for p in (model.partition_, partitioner)]
    np.testing.assert_allclose(*counts)
    assert model.n_folds_ == 0
    assert not hasattr(model, "_eval_set")
    frozen = SelfInformedClassifier(base, **HEADS | FAST)
    frozen.fit(X, y, eval_set=(held[:50], truth[:50]))
    again = frozen.fit(X, y).partition_
    assert again.confusion_.sum() * len(X) == pytest.approx(2 * len(X))


def test_heads_begin_as_the_network_was_unless_it_is_to_begin_anew(some_digits, base):
    X, y = some_digits
    scores = {}
    for fresh in (False, True):
        model = SelfInformedClassifier(base, fresh_classifier=fresh, **HEADS | FAST)
        model.set_params(learning_rate=1e-9, n_rounds=2)
        with warnings.catch_warnings(action="ignore"):
            scores[fresh] = model.fit(X, y).decision_function(X)
    distance = [abs(s - base.decision_function(X)).max() for s in scores.values()]
    assert distance[0] < 0.1 < distance[1]


def test_one_label_and_two_classes_will_do(blobs):
    X, y = blobs
    for labels in (np.full(90, "only"), y == 1):
        model = SelfInformedClassifier(head_layer_sizes=(4,), **FAST).fit(X, labels)
        assert model.n_clusters_ == 1
        assert model.predict_proba(X).shape == (90, len(set(labels)))


# ---- training ------------------------------------------------------------------


def test_kept_features_train_as_the_samples_do(some_digits, convnet, monkeypatch):
    """Up to rounding: a batch of one sample more takes other kernels."""
    X, y = some_digits
    base = StructuredClassifier(convnet, image_shape=(1, 8, 8), **FAST).fit(X, y)
    settings = HEADS | FAST | {"dtype": "float64", "layer": "3"}
    kept = SelfInformedClassifier(base, **settings).fit(X, y)
    name = "sklearn_structreg.selfinformed.augmentation.MAX_KEPT_BYTES"
    monkeypatch.setattr(name, 0)
    anew = SelfInformedClassifier(base, **settings).fit(X, y)
    np.testing.assert_allclose(kept.predict_proba(X), anew.predict_proba(X), rtol=1e-9)


def test_weight_zero_is_absent_and_weight_k_is_k_copies(digits):
    X, y = digits[0][:300], digits[1][:300]
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 4, size=300)
    order = rng.permutation(weight.sum())
    settings = HEADS | EXACT
    weighted = SelfInformedClassifier(**settings).fit(X, y, sample_weight=weight)
    copied = SelfInformedClassifier(**settings)
    copied.fit(X.repeat(weight, 0)[order], y.repeat(weight)[order])
    assert copied.n_folds_ == weighted.n_folds_ == 2
    np.testing.assert_array_equal(
        weighted.partition_.labels_, copied.partition_.labels_
    )
    np.testing.assert_allclose(
        weighted.partition_.miss_rate_, copied.partition_.miss_rate_
    )
    np.testing.assert_allclose(
        weighted.predict_proba(X), copied.predict_proba(X), rtol=1e-12
    )
    kept = weight > 0
    subset = SelfInformedClassifier(**settings)
    subset.fit(X[kept], y[kept], sample_weight=weight[kept])
    np.testing.assert_array_equal(weighted.predict_proba(X), subset.predict_proba(X))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_early_stopping_and_callbacks_reach_the_heads(some_digits):
    model = SelfInformedClassifier(
        early_stopping=True, n_iter_no_change=2, learning_rate=1e-6, **HEADS
    ).set_params(max_epochs=50, random_state=0, momentum=0)
    model.fit(*some_digits)
    assert "valid_loss" in model.history_[0]


def test_a_dataset_is_trained_on_as_an_array_is(some_digits):
    X, y = some_digits
    dataset = TensorDataset(torch.from_numpy(X.copy()), torch.from_numpy(y))
    model = SelfInformedClassifier(**HEADS, **FAST).set_params(max_epochs=10)
    assert model.fit(dataset).score(X, y) > 0.8
    assert model.n_folds_ == 2
    assert model.predict(dataset).shape == (600,)


def test_the_same_seed_gives_the_same_model_and_no_state_is_touched(some_digits):
    X, y = some_digits
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    one, two = (SelfInformedClassifier(**HEADS, **FAST).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    other = SelfInformedClassifier(**HEADS, **FAST).set_params(random_state=1)
    assert not np.array_equal(other.fit(X, y).predict_proba(X), one.predict_proba(X))


# ---- around scikit-learn -------------------------------------------------------


def test_a_pickle_predicts_and_goes_on_as_the_original(some_digits):
    X, y = some_digits
    model = SelfInformedClassifier(warm_start=True, **HEADS, **FAST).fit(X, y)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    before = states(model.module_.trunk)
    for fitted in (model, copy):
        fitted.fit(X, y)
    assert model.n_iter_ == 6
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    for name, value in states(model.module_.trunk).items():
        assert torch.equal(value, before[name])


def test_a_grid_search_over_groups_and_sources(some_digits, base):
    X, y = some_digits
    model = SelfInformedClassifier(FrozenEstimator(base), head_layer_sizes=(8,), **FAST)
    grid = {"n_clusters": [0, 2], "source": ["confusion", "random"]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_.estimator_ is base
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    nested = SelfInformedClassifier(StructuredClassifier(**FAST), **HEADS, **FAST)
    assert clone(nested).set_params(estimator__max_epochs=1).estimator.max_epochs == 1
    pipeline = make_pipeline(StandardScaler(), nested)
    assert pipeline.fit(X, y).score(X, y) > 0.8


def test_there_is_no_partial_fit():
    assert not hasattr(SelfInformedClassifier(), "partial_fit")


def test_conditional_heads_cost_less_and_can_be_switched(some_digits, base):
    X, _ = some_digits
    model = SelfInformedClassifier(base, **HEADS, **FAST).fit(*some_digits)
    everything = model.predict_proba(X)
    for some in (X, X[:1], X[:17]):
        assert model.count_multiply_adds(some) == model.multiply_adds_.augmented
    model.set_params(conditional=1)
    low, extra = model.multiply_adds_
    gate = 100 * 10  # the old classifier layer, which decides
    assert low + gate < model.count_multiply_adds(X) < extra
    assert np.mean(model.predict(X) == everything.argmax(axis=1)) > 0.8
    with pytest.raises(ValueError, match="'conditional' parameter"):
        model.set_params(conditional=0).predict(X)
    model.set_params(conditional=10)
    np.testing.assert_allclose(model.predict_proba(X), everything, atol=1e-5)


# ---- bad input -----------------------------------------------------------------


def test_before_fit_there_is_nothing_to_predict():
    with pytest.raises(NotFittedError):
        SelfInformedClassifier().predict(np.zeros((2, 3)))
