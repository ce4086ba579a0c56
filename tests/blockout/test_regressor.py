"""BlockoutRegressor: off, on, and its structure."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.metrics import r2_score

from sklearn_structreg.blockout import (
    BlockoutClassifier,
    BlockoutDisplay,
    BlockoutRegressor,
    NodeEmbeddingDisplay,
)
from sklearn_structreg.core import StructuredRegressor
from sklearn_structreg.core.inspection import run_once

FAST = {"max_epochs": 3, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    X, y = make_regression(400, 8, n_targets=3, noise=1.0, random_state=0)
    return X, 50 + y


@pytest.fixture(scope="module")
def fitted(data):
    model = BlockoutRegressor(max_epochs=60, random_state=0)
    return model.fit(*data)


def weights(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.module_.parameters()])


@pytest.mark.parametrize("mask_per", ["batch", "sample"])
def test_off_is_the_plain_net_bit_for_bit(data, mask_per):
    off = BlockoutRegressor(init_probability=1, mask_per=mask_per, **FAST).fit(*data)
    plain = StructuredRegressor(**FAST).fit(*data)
    assert torch.equal(weights(off), weights(plain))
    np.testing.assert_array_equal(off.predict(data[0]), plain.predict(data[0]))


def test_it_learns_several_targets_and_one(data, fitted):
    X, y = data
    assert fitted.score(X, y) > 0.8
    assert [P.shape for P in fitted.cluster_probabilities_] == [
        (8, 6),
        (100, 6),
        (3, 6),
    ]
    one = clone(fitted).fit(X, y[:, 0])
    assert one.predict(X).shape == (400,)
    assert len(one.expected_clusters_[-1]) == 1


def test_hardening_reports_the_coefficient_of_determination(data, fitted):
    X, y = data
    report = fitted.harden(X, y, threshold=0.7)
    outputs = run_once(report.module, torch.tensor(X, dtype=torch.float32)).numpy()
    expected = outputs.astype(float) * fitted.target_scale_ + fitted.target_mean_
    assert report.score == fitted.score(X, y)
    assert report.hardened_score == pytest.approx(r2_score(y, expected), rel=1e-5)
    assert report.hardened_score != report.score
    kept = fitted.harden(X, y, threshold=1e-6)
    assert kept.hardened_score == kept.score
    assert "score:" in str(report)


def test_structure_and_pictures_name_no_classes(fitted):
    assert [nodes.n_nodes for nodes in fitted.diagnose().node_sets] == [8, 100, 3]
    assert not hasattr(fitted, "class_hierarchy")
    assert hasattr(BlockoutClassifier, "class_hierarchy")
    pytest.importorskip("matplotlib").use("Agg")
    display = NodeEmbeddingDisplay.from_estimator(fitted)
    assert display.names[-1] == "$P_{2}$: 3 targets"
    assert display.texts_ == []
    assert BlockoutDisplay.from_estimator(fitted).class_names is None
    named = NodeEmbeddingDisplay.from_estimator(fitted, class_names=["a", "b", "c"])
    assert {text.get_text() for text in named.texts_} <= {"a", "b", "c"}


def test_a_warm_start_goes_on_and_keeps_its_structure(data):
    model = BlockoutRegressor(warm_start=True, **FAST).fit(*data).fit(*data)
    assert model.n_iter_ == 6
    with pytest.raises(ValueError, match="assignment cannot change"):
        model.set_params(assignment="soft").fit(*data)
