import numpy as np
import pytest

from sklearn_structreg.blockout.memberships import (
    group_nodes,
    shared_clusters,
    threshold_memberships,
)


def test_a_node_is_in_a_cluster_from_the_threshold_on():
    P = [[0.7, 0.69, 0.71], [0.1, 0.3, 0.2]]
    members = threshold_memberships(P, 0.7)
    np.testing.assert_array_equal(members, [[1, 0, 1], [0, 0, 0]])
    rescued = threshold_memberships(P, 0.7, at_least_one=True)
    np.testing.assert_array_equal(rescued, [[1, 0, 1], [0, 1, 0]])


def test_groups_hold_every_node_once_and_dead_ones_last():
    members = np.random.default_rng(0).random((50, 3)) < 0.3
    groups = group_nodes(members)
    for pattern, nodes in groups:
        np.testing.assert_array_equal(members[nodes], np.tile(pattern, (len(nodes), 1)))
    every = np.concatenate([nodes for _, nodes in groups])
    np.testing.assert_array_equal(np.sort(every), np.arange(50))
    assert not groups[-1][0].any()
    assert all(pattern.any() for pattern, _ in groups[:-1])


def test_shared_clusters_is_the_mean_of_many_draws():
    rng = np.random.default_rng(0)
    P = rng.random((3, 4))
    draws = (rng.random((40_000, 3, 4)) < P).astype(float)
    within = np.einsum("nil,njl->ij", draws, draws) / 40_000
    np.testing.assert_allclose(shared_clusters(P), within, atol=0.02)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5])
def test_a_threshold_out_of_range(threshold):
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
        threshold_memberships([[0.5]], threshold)


@pytest.mark.parametrize("value", [-0.1, 1.2, np.nan])
def test_logits_are_not_taken_for_probabilities(value):
    with pytest.raises(ValueError, match="not the logits"):
        threshold_memberships([[0.5, value]])
