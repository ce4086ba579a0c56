"""BlockoutClassifier: the plain net where it is off, and a life of its own."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import minmax_scale
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout import BlockoutLinear, NodeSet, convert
from sklearn_structreg.blockout.conversion import blockout_layers
from sklearn_structreg.blockout.recorder import ProbabilityRecorder
from sklearn_structreg.core import StructuredClassifier, make_mlp

FAST = {"max_epochs": 3, "random_state": 0}


def weights(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.module_.parameters()])


class WithDropout(nn.Sequential):
    """A net that draws random numbers of its own."""

    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))


# ---- off -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "off",
    [
        {"init_probability": 1, "learn_probabilities": False},
        {"init_probability": 1, "mask_per": "sample", "n_clusters": 3},
        {"init_probability": 1, "assignment": "soft"},
    ],
)
@pytest.mark.parametrize(
    "net", [{}, {"image_shape": (1, 8, 8)}, {"module": WithDropout}]
)
def test_off_is_the_plain_net_bit_for_bit(digits, off, net):
    X, y = digits[0][:500], digits[1][:500]
    plain = StructuredClassifier(weight_decay=1e-3, **net, **FAST).fit(X, y)
    model = BlockoutClassifier(weight_decay=1e-3, **off, **net, **FAST).fit(X, y)
    assert torch.equal(weights(plain), weights(model))
    np.testing.assert_array_equal(plain.predict_proba(X), model.predict_proba(X))


# ---- on ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"learn_probabilities": False},
        {"assignment": "soft"},
        {"mask_per": "sample"},
    ],
)
def test_every_variant_learns(digits, variant):
    X, y = digits
    model = BlockoutClassifier(max_epochs=25, random_state=0, **variant).fit(X, y)
    assert model.score(X, y) > 0.9


def test_convnets_learn(digits):
    X, y = digits
    model = BlockoutClassifier(
        image_shape=(1, 8, 8), max_epochs=25, random_state=0
    ).fit(X, y)
    assert model.score(X, y) > 0.9
    assert [p.shape for p in model.cluster_probabilities_] == [
        (256, 6),
        (100, 6),
        (10, 6),
    ]


def test_probabilities_move_only_where_they_are_learned(digits):
    X, y = digits
    fixed = BlockoutClassifier(learn_probabilities=False, **FAST).fit(X, y)
    np.testing.assert_allclose(np.concatenate(fixed.cluster_probabilities_), 0.8)
    model = BlockoutClassifier(**FAST).fit(X, y)
    P = model.cluster_probabilities_
    assert all(
        (abs(p - 0.8) > 1e-6).mean() > 0.8 for p in P
    )  # margin pixels are always zero
    for p, expected in zip(P, model.expected_clusters_, strict=True):
        np.testing.assert_array_equal(p.sum(axis=1), expected)
    assert not np.allclose(P[2][:, 0], P[2][:, 1], atol=1e-3)


def test_the_history_follows_the_probabilities(digits, capsys):
    model = BlockoutClassifier(verbose=1, **FAST).fit(*digits)
    assert "probability" not in capsys.readouterr().out
    for row in model.history_:
        assert [sum(h) for h in row["probability_histogram"]] == [64 * 6, 600, 60]
    last = model.history_[-1]
    for p, histogram, quantiles in zip(
        model.cluster_probabilities_,
        last["probability_histogram"],
        last["probability_quantiles"],
        strict=True,
    ):
        expected = np.histogram(p.astype(float), 50, (0, 1))[0]
        assert np.abs(np.subtract(histogram, expected)).sum() <= 4  # on an edge
        assert quantiles[0] == p.min()
        assert quantiles[-1] == p.max()
        assert quantiles[3] == np.quantile(p, 0.5, method="nearest")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_weight_decay_spares_the_logits(digits, optimizer):
    X, y = digits
    settings = {"weight_decay": 10.0, "optimizer": optimizer, "learning_rate": 1e-3}
    model = BlockoutClassifier(
        init_probability=0.2, logit_rate_factor=0, **settings, **FAST
    ).fit(X, y)
    for p in model.cluster_probabilities_:
        np.testing.assert_allclose(p, 0.2, rtol=1e-6)
    groups = model.net_.optimizer_.param_groups
    assert [group["weight_decay"] for group in groups] == [10.0, 0.0]
    names = {id(p): n for n, p in model.module_.named_parameters()}
    assert all("logits" in names[id(p)] for p in groups[1]["params"])
    assert not any("logits" in names[id(p)] for p in groups[0]["params"])


def test_the_logits_follow_the_schedule_at_their_own_rate(digits):
    model = BlockoutClassifier(lr_schedule="cosine", logit_rate_factor=4, **FAST)
    common, logits = model.fit(*digits).net_.optimizer_.param_groups
    assert common["initial_lr"] == 0.05
    assert logits["initial_lr"] == 0.2
    assert logits["lr"] == pytest.approx(4 * common["lr"])


# ---- folding -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)]
)
def test_the_folded_net_has_the_same_outputs(digits, dtype, tolerance):
    X, y = digits
    model = BlockoutClassifier(dtype=dtype, **FAST).fit(X, y)
    folded = model.fold()
    assert [type(part) for part in folded] == [nn.Linear, nn.ReLU, nn.Linear]
    x = torch.from_numpy(X.astype(dtype))
    with torch.no_grad():
        torch.testing.assert_close(
            folded(x), model.module_(x), rtol=tolerance, atol=tolerance
        )


# ---- going on ------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant", [{}, {"mask_per": "sample"}, {"assignment": "soft"}]
)
def test_a_pickle_goes_on_as_the_uninterrupted_run(digits, variant):
    X, y = digits[0][:300], digits[1][:300]
    whole = BlockoutClassifier(random_state=0, max_epochs=4, **variant).fit(X, y)
    model = BlockoutClassifier(random_state=0, **variant)
    for _ in range(4):
        model.partial_fit(X, y, classes=range(10))
        model = pickle.loads(pickle.dumps(model))
    assert torch.equal(weights(whole), weights(model))


def test_warm_start_keeps_the_clusters(digits):
    model = BlockoutClassifier(warm_start=True, **FAST).fit(*digits)
    before = model.cluster_probabilities_
    model.set_params(max_epochs=1, learning_rate=1e-9).fit(*digits)
    for one, two in zip(before, model.cluster_probabilities_, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    assert len(blockout_layers(model.module_)) == 2


def test_fits_are_reproducible_and_leave_the_generator_alone(digits):
    for variant in ({}, {"assignment": "soft"}, {"mask_per": "sample"}):
        state = torch.get_rng_state()
        one = BlockoutClassifier(**variant, **FAST).fit(*digits)
        torch.rand(5)
        two = BlockoutClassifier(**variant, **FAST).fit(*digits)
        assert torch.equal(weights(one), weights(two))
        torch.set_rng_state(state)
        BlockoutClassifier(**variant, **FAST).fit(*digits)
        assert torch.equal(torch.get_rng_state(), state)
        other = BlockoutClassifier(max_epochs=3, random_state=1, **variant)
        assert not torch.equal(weights(other.fit(*digits)), weights(one))


def test_weights_count_as_copies_in_double_precision(blobs):
    X, y = blobs
    weight = np.arange(90) % 3
    settings = {"dtype": "float64", "batch_size": None, **FAST}
    weighted = BlockoutClassifier(**settings).fit(X, y, sample_weight=weight)
    copies = BlockoutClassifier(**settings).fit(
        np.repeat(X, weight, axis=0), np.repeat(y, weight)
    )
    torch.testing.assert_close(
        weights(weighted), weights(copies), rtol=1e-11, atol=1e-13
    )


def test_early_stopping_and_search(digits):
    X, y = digits[0][:400], digits[1][:400]
    model = BlockoutClassifier(early_stopping=True, **FAST).fit(X, y)
    assert "valid_loss" in model.history_[-1]
    grid = {"n_clusters": [1, 3], "init_probability": [0.5, 0.9, 1]}
    search = GridSearchCV(clone(model), grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.3


# ---- one's own nets ------------------------------------------------------------


def test_a_module_with_layers_of_its_own_keeps_them(digits):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            sets = [NodeSet(size, 4, init_probability=0.8) for size in (64, 30, 10)]
            self.one = BlockoutLinear(sets[0], sets[1])
            self.two = BlockoutLinear(sets[1], sets[2])

        def forward(self, x):
            return self.two(self.one(x).relu())

    model = BlockoutClassifier(Head, **FAST).fit(*digits)
    assert [p.shape for p in model.cluster_probabilities_] == [
        (64, 4),
        (30, 4),
        (10, 4),
    ]


def test_named_layers_alone_are_converted(digits):
    model = BlockoutClassifier(hidden_layer_sizes=(30, 20), layers=["0", "2"], **FAST)
    model.fit(*digits)
    assert isinstance(model.module_[2], BlockoutLinear)
    assert type(model.module_[4]) is nn.Linear
    assert [len(p) for p in model.cluster_probabilities_] == [64, 30, 20]


def test_a_skorch_net_of_ones_own(digits):
    X, y = digits[0].astype("float32"), digits[1]
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        convert(make_mlp(64, 10), torch.from_numpy(X[:2])),
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        max_epochs=20,
        callbacks=[ProbabilityRecorder],
        optimizer__weight_decay=1e-4,
        optimizer__param_groups=[("*logits", {"weight_decay": 0.0, "lr": 2.0})],
        verbose=0,
    ).fit(X, y)
    assert net.score(X, y) > 0.85
    assert len(net.history[:, "probability_histogram"]) == 20
    common, logits = net.optimizer_.param_groups[::-1]
    if len(common["params"]) == 3:
        common, logits = logits, common
    assert (len(common["params"]), common["weight_decay"]) == (4, 1e-4)
    assert (len(logits["params"]), logits["weight_decay"]) == (3, 0.0)
    twin = pickle.loads(pickle.dumps(net)).partial_fit(X, y)
    assert len(twin.history) == 40


# ---- bad input -----------------------------------------------------------------


def test_modules_and_names_without_a_chain(digits):
    X, y = digits
    convolutions = nn.Sequential(
        nn.Unflatten(1, (1, 64)), nn.Conv1d(1, 10, 64), nn.Flatten()
    )
    with pytest.raises(ValueError, match="runs no torch.nn.Linear layer"):
        BlockoutClassifier(convolutions).fit(X, y)
    with pytest.raises(ValueError, match="do not form a chain"):
        BlockoutClassifier(layers=["2", "0"]).fit(X, y)


def test_a_warm_start_with_another_structure_says_so(blobs):
    model = BlockoutClassifier(warm_start=True, **FAST).fit(*blobs)
    changes = [
        ({"n_clusters": 3}, "n_clusters cannot change from 6 to 3"),
        ({"assignment": "soft"}, "assignment cannot change from 'hard' to 'soft'"),
        ({"init_probability": 0.5}, "init_probability cannot change"),
        ({"learn_probabilities": False}, "learn_probabilities cannot change"),
        ({"mask_per": "sample"}, "mask_per cannot change"),
        ({"layers": ["0"]}, "layers cannot change"),
    ]
    for change, message in changes:
        old = {name: model.get_params()[name] for name in change}
        before = weights(model)
        with pytest.raises(ValueError, match=message):
            model.set_params(**change).fit(*blobs)
        assert torch.equal(weights(model), before)
        model.set_params(**old)
    model.set_params(logit_rate_factor=1.0).fit(*blobs)
    assert model.n_iter_ == 6


def test_hardening_with_several_labels_per_sample():
    X, Y = make_multilabel_classification(200, 20, n_classes=5, random_state=0)
    X = minmax_scale(X)
    model = BlockoutClassifier(max_epochs=20, random_state=0).fit(X, Y)
    hardened = model.harden(X, Y)
    with torch.no_grad():
        logits = hardened.module(torch.from_numpy(X.astype("float32"))).numpy()
    assert hardened.score == (model.predict(X) == Y).all(axis=1).mean()
    assert hardened.hardened_score == ((logits > 0) == Y).all(axis=1).mean()
    assert hardened.hardened_score > 0
    assert model.class_hierarchy().classes.tolist() == [0, 1, 2, 3, 4]


def test_the_diagnosis_starts_where_the_layers_did(blobs):
    n_features = blobs[0].shape[1]
    sets = [NodeSet(size, 4, init_probability=0.8) for size in (n_features, 3)]
    model = BlockoutClassifier(nn.Sequential(BlockoutLinear(*sets)), **FAST)
    found = model.fit(*blobs).diagnose().node_sets
    assert [nodes.outcome for nodes in found] == ["unchanged", "unchanged"]
    model = BlockoutClassifier(**FAST).fit(*blobs).set_params(init_probability=0.8)
    assert model.diagnose().node_sets[0].outcome == "unchanged"


class Hidden(nn.Sequential):
    """As many hidden nodes as classes, and a softmax at the end."""

    def __init__(self):
        super().__init__(
            nn.Linear(64, 10), nn.Tanh(), nn.Linear(10, 10), nn.LogSoftmax(1)
        )


def test_hidden_nodes_are_not_taken_for_classes(digits):
    X, y = digits[0][:300], digits[1][:300]
    whole = BlockoutClassifier(Hidden, **FAST).fit(X, y)
    assert len(whole.class_hierarchy().classes) == 10
    part = BlockoutClassifier(Hidden, layers=["0"], **FAST).fit(X, y)
    with pytest.raises(ValueError, match="nodes of the last set are not the 10"):
        part.class_hierarchy()
    part = BlockoutClassifier(layers=["0"], **FAST).fit(X, y)
    with pytest.raises(ValueError, match="The 100 nodes of the last set are not"):
        part.class_hierarchy()
