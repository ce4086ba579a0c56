"""Section 6's outcomes on probabilities that were made to show them."""

import numpy as np
import pytest

from sklearn_structreg.blockout.diagnosis import diagnose

RNG = np.random.default_rng(0)
MADE = {
    "diverged": np.where(RNG.random((40, 4)) < 0.3, 0.95, 0.05),
    "unchanged": RNG.uniform(0.42, 0.58, (40, 4)),
    "towards one": RNG.uniform(0.7, 1.0, (40, 4)),
    "towards zero": RNG.uniform(0.0, 0.3, (40, 4)),
    "mixed": np.where(np.arange(160).reshape(40, 4) % 2, 0.9, 0.5),
}


@pytest.mark.parametrize("outcome", MADE)
def test_each_outcome_is_named(outcome):
    found = diagnose([MADE[outcome]])
    assert found.node_sets[0].outcome == outcome
    assert f"P_0, 40 nodes: {outcome}" in str(found)
    assert f"\n{outcome}: " in str(found)


def test_node_sets_are_told_apart_and_shares_are_counted():
    P = np.array([[0.65, 0.35, 0.5, 0.9], [0.1, 0.55, 0.61, 0.39]])
    found = diagnose([MADE["unchanged"], P])
    assert [each.outcome for each in found.node_sets] == ["unchanged", "diverged"]
    each = found.node_sets[1]
    assert (each.risen, each.fallen, each.decided) == (3 / 8, 3 / 8, 2 / 8)
    assert each.n_nodes == 2


def test_a_cluster_can_differ_from_its_node_set():
    P = MADE["towards one"].copy()
    P[:, 2] = 0.02
    found = diagnose([P]).node_sets[0]
    assert found.outcome == "diverged"
    expected = ("towards one", "towards one", "towards zero", "towards one")
    assert found.clusters == expected
    assert "clusters by themselves: 0 towards one, 1 towards one, 2 towards zero" in (
        str(diagnose([P]))
    )


def test_it_is_measured_from_the_start():
    P = np.full((10, 3), 0.7)
    assert diagnose([P]).node_sets[0].outcome == "towards one"
    assert diagnose([P], init_probability=0.7).node_sets[0].outcome == "unchanged"
    assert diagnose([P], init_probability=0.85).node_sets[0].outcome == "towards zero"


@pytest.mark.parametrize("start", [0.0, 0.05, 0.95, 1.0])
def test_a_start_at_the_edge_cannot_be_judged(start):
    with pytest.raises(ValueError, match="no room to rise or fall"):
        diagnose([[[0.5]]], init_probability=start)


def test_bad_probabilities():
    with pytest.raises(ValueError, match="is empty"):
        diagnose([])
    with pytest.raises(ValueError, match=r"shapes \[\(2,\)\]"):
        diagnose([[0.5, 0.5]])


def test_each_node_set_has_its_own_start():
    found = diagnose([np.full((4, 2), 0.8), np.full((3, 2), 0.8)], [0.8, 0.5])
    assert [nodes.outcome for nodes in found.node_sets] == ["unchanged", "towards one"]
    with pytest.raises(ValueError, match="holds 1 values for 2 node sets"):
        diagnose([np.full((4, 2), 0.8), np.full((3, 2), 0.8)], [0.8])
