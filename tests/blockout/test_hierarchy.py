import numpy as np
import pytest
from scipy.special import expit, logit

from sklearn_structreg.blockout import ClassHierarchy

P = np.array([[0.9, 0.1, 0.0], [0.8, 0.6, 0.0], [0.0, 0.2, 0.9], [0.1, 0.3, 0.4]])
NAMES = ["cat", "dog", "bus", "van"]


def test_by_hand():
    found = ClassHierarchy.of(P, NAMES)
    np.testing.assert_allclose(found.expected_clusters, [1.0, 1.4, 1.1, 0.8])
    np.testing.assert_allclose(found.shared[0], [1.0, 0.78, 0.02, 0.12])
    assert found.clusters() == [["cat", "dog"], ["dog"], ["bus"]]
    # cat-dog: sqrt(.01 + .25); bus-van: sqrt(.01 + .01 + .25)
    np.testing.assert_allclose(found.linkage[0, :3], [0, 1, np.sqrt(0.26)])
    np.testing.assert_allclose(found.linkage[1, :3], [2, 3, np.sqrt(0.27)])
    assert found.groups(2) == [["cat", "dog"], ["bus", "van"]]
    assert found.groups(3) == [["cat", "dog"], ["bus"], ["van"]]
    assert found.groups(4) == [["cat"], ["dog"], ["bus"], ["van"]]
    np.testing.assert_array_equal(found.labels(1), [0, 0, 0, 0])
    assert sorted(found.leaves()) == [0, 1, 2, 3]
    assert ClassHierarchy.of(P, NAMES, threshold=0.3).clusters()[1] == ["dog", "van"]


def test_average_height_of_the_root_by_hand():
    distance = np.sqrt(((P[:, None] - P[None]) ** 2).sum(-1))
    root = ClassHierarchy.of(P).linkage[-1, 2]
    assert root == pytest.approx(distance[:2, 2:].mean())
    root = ClassHierarchy.of(P, method="complete").linkage[-1, 2]
    assert root == pytest.approx(distance[:2, 2:].max())


def test_profiles_are_correlated_however_many_clusters_a_class_is_in():
    level = np.array([0.02, 0.9, 0.05, 0.97])[:, None]
    tilt = np.array([[2, 0, -2], [2, 0, -2], [0, -2, 2], [-0.1, -1.9, 2]])
    blocks = expit(logit(level) + tilt)
    by_profile = ClassHierarchy.of(blocks, NAMES, distance="profile")
    assert by_profile.groups(2) == [["cat", "dog"], ["bus", "van"]]
    assert ClassHierarchy.of(blocks, NAMES).groups(2) == [
        ["cat", "bus"],
        ["dog", "van"],
    ]
    expected = 1 - np.corrcoef(logit(blocks))
    assert by_profile.linkage[-1, 2] == pytest.approx(expected[:2, 2:].mean())


def test_profiles_of_classes_without_preferences_are_no_trouble():
    blocks = np.array([[0.5, 0.5], [1.0, 1.0], [1.0, 0.0], [0.9, 0.2]])
    found = ClassHierarchy.of(blocks, distance="profile")
    assert found.labels(3).tolist() == [0, 1, 2, 2]
    assert np.isfinite(
        ClassHierarchy.of([[0.5], [0.7]], distance="profile").linkage
    ).all()


def test_groups_that_a_shuffled_order_hides():
    rng = np.random.default_rng(0)
    superclass = rng.permutation(np.repeat(np.arange(4), 5))
    blocks = np.eye(4)[superclass] * 0.8 + rng.uniform(0, 0.2, (20, 4))
    labels = ClassHierarchy.of(blocks).labels(4)
    for group in range(4):
        assert len(set(superclass[labels == group])) == 1
    _, first = np.unique(labels, return_index=True)
    assert (np.diff(first) > 0).all()


def test_classes_keep_their_type_and_probabilities_are_not_changed():
    given = P.copy()
    found = ClassHierarchy.of(given, [7, 8, 9, 10])
    assert found.clusters()[0] == [7, 8]
    np.testing.assert_array_equal(given, P)
