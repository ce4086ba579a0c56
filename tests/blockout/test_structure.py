"""What a fitted BlockoutClassifier says about its structure, on real data."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.core import count_multiply_adds
from sklearn_structreg.core.inspection import run_once


@pytest.fixture(scope="module")
def fitted(digits):
    X, y = digits
    model = BlockoutClassifier(
        hidden_layer_sizes=(100, 100),
        block_penalty=0.1,
        max_epochs=30,
        random_state=0,
    )
    return model.fit(X[:1200], y[:1200])


def test_hardening_at_nothing_is_the_fold(fitted, digits):
    X, y = digits[0][1200:], digits[1][1200:]
    kept = fitted.harden(X, y, threshold=1e-6)
    assert kept.nonzero_shares == (1.0, 1.0, 1.0)
    assert kept.multiply_adds == (64 * 100 + 100 * 100 + 100 * 10,) * 2
    assert kept.score == kept.hardened_score == fitted.score(X, y)


def test_hardening_reports_what_the_modules_are(fitted, digits):
    X, y = digits[0][1200:], digits[1][1200:]
    before = {name: p.clone() for name, p in fitted.module_.named_parameters()}
    report = fitted.harden(X, y)
    x = torch.tensor(X, dtype=torch.float32)
    guessed = run_once(report.module, x).argmax(1).numpy()
    assert report.hardened_score == np.mean(guessed == y)
    assert report.score == fitted.score(X, y)
    assert report.score - 0.05 < report.hardened_score < 1
    weights = [p for p in report.module.parameters() if p.ndim == 2]
    shares = [float((weight != 0).double().mean()) for weight in weights]
    np.testing.assert_allclose(report.nonzero_shares, shares, atol=1e-12)
    assert all(0.1 < share < 1 for share in shares)
    assert report.multiply_adds[0] == count_multiply_adds(report.module, x[:1])
    assert report.multiply_adds[1] == count_multiply_adds(report.branches, x[:1])
    torch.testing.assert_close(
        run_once(report.branches, x), run_once(report.module, x), rtol=1e-5, atol=1e-5
    )
    merged = run_once(report.merged_branches(), x)
    torch.testing.assert_close(merged, run_once(report.module, x), rtol=1e-5, atol=1e-5)
    for weight, folded in zip(weights, fitted.fold()[::2], strict=True):
        assert torch.equal(weight, folded.weight * (weight != 0))
    for name, parameter in fitted.module_.named_parameters():
        assert torch.equal(parameter, before[name])
    loaded = pickle.loads(pickle.dumps(report))
    assert str(loaded) == str(report)
    assert torch.equal(run_once(loaded.branches, x), run_once(report.branches, x))


def test_a_convolutional_net_is_hardened_behind_its_features(digits):
    X, y = digits[0][:400], digits[1][:400]
    model = BlockoutClassifier(
        image_shape=(1, 8, 8),
        hidden_layer_sizes=(40,),
        block_penalty=0.1,
        max_epochs=3,
        random_state=0,
    ).fit(X, y)
    report = model.harden(X, y)
    assert [len(C) for C in report.memberships] == [256, 40, 10]
    x = torch.tensor(X, dtype=torch.float32).reshape(-1, 1, 8, 8)
    torch.testing.assert_close(
        run_once(report.branches, x), run_once(report.module, x), rtol=1e-5, atol=1e-5
    )


def test_hierarchy_and_diagnosis_are_those_of_the_probabilities(fitted):
    P = fitted.cluster_probabilities_
    found = fitted.class_hierarchy([f"digit {i}" for i in range(10)])
    np.testing.assert_array_equal(found.probabilities, P[-1])
    np.testing.assert_allclose(
        found.expected_clusters, fitted.expected_clusters_[-1], rtol=1e-6
    )
    every = [name for group in found.groups(4) for name in group]
    assert sorted(every) == sorted(found.classes)
    np.testing.assert_array_equal(fitted.class_hierarchy().classes, np.arange(10))
    sets = fitted.diagnose().node_sets
    assert [each.n_nodes for each in sets] == [64, 100, 100, 10]
    assert sets[-1].risen == np.mean(P[-1].astype(float) > 0.6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_bad_input(fitted, digits):
    X, y = digits
    with pytest.raises(ValueError, match="Pass both X and y"):
        fitted.harden(X)
    with pytest.raises(ValueError, match=r"threshold=0.0 must lie in \(0, 1\]"):
        fitted.harden(X, y, threshold=0.0)
    with pytest.raises(ValueError, match="one name per class"):
        fitted.class_hierarchy(["cat", "dog"])
    inner = BlockoutClassifier(layers=["0"], max_epochs=1).fit(X[:100], y[:100])
    with pytest.raises(ValueError, match="100 nodes of the last set are not"):
        inner.class_hierarchy()
    for method in ("harden", "class_hierarchy", "diagnose"):
        with pytest.raises(NotFittedError):
            getattr(BlockoutClassifier(), method)()


def test_a_price_makes_a_small_net_of_digits(digits):
    """Most weights go, and hardening costs little: without it the net is lost."""
    X, y = digits
    shares = {}
    for price in (0.0, 0.3):
        model = BlockoutClassifier(
            hidden_layer_sizes=(100,),
            gradient="straight_through",
            logit_rate_factor=100,
            block_penalty=price,
            max_epochs=40,
            random_state=0,
        ).fit(X[:1200], y[:1200])
        hardened = model.harden(X[1200:], y[1200:], threshold=0.3)
        shares[price] = hardened.multiply_adds[1] / hardened.multiply_adds[0]
        assert hardened.score > 0.9
        assert hardened.hardened_score > hardened.score - 0.02
    assert shares[0.3] < 0.5 < 0.9 < shares[0.0]


def planted_groups_found(seed, **settings):
    """Agreement with four groups of classes, each with eight features of its own."""
    rng = np.random.default_rng(seed)
    group, y = rng.permutation(16) // 4, rng.integers(16, size=1500)
    means = rng.normal(size=(16, 8))
    X = rng.normal(size=(1500, 4, 8))
    X[np.arange(1500), group[y]] += (
        3 * (means / np.linalg.norm(means, axis=1)[:, None])[y]
    )
    model = BlockoutClassifier(
        n_clusters=12,
        hidden_layer_sizes=(),
        logit_rate_factor=100,
        max_epochs=40,
        random_state=seed,
        **settings,
    ).fit(X.reshape(1500, -1), y)
    labels = model.class_hierarchy(distance="profile").labels(4)
    return adjusted_rand_score(group, labels)


def test_a_price_finds_planted_groups_of_classes():
    """In the mean: a seed in five joins two groups, or splits one."""
    priced = {"gradient": "straight_through", "block_penalty": 0.3}
    assert np.mean([planted_groups_found(seed, **priced) for seed in range(3)]) > 0.8
    assert planted_groups_found(0, gradient="paper") < 0.3
