"""Ng-Jordan-Weiss on B = A^T A, against loops, LAPACK and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from selfinformed import paper
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from sklearn_structreg.selfinformed import spectral


def random_confusion(n, seed, density=0.5):
    rng = np.random.default_rng(seed)
    dense = rng.random((n, n)) * (rng.random((n, n)) < density) + np.eye(n)
    return sparse.csr_array(dense)


def blocks(n, k, seed, stray=0):
    """Draw confusions within k groups of random classes, and `stray` between them."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.arange(n) % k)
    order = np.argsort(groups, kind="stable")
    start, size = np.searchsorted(groups[order], groups), np.bincount(groups)[groups]
    rows = np.repeat(np.arange(n), 30)
    columns = order[start[rows] + rng.integers(0, size[rows])]
    rows = np.concatenate([rows, rng.integers(0, n, stray)])
    columns = np.concatenate([columns, rng.integers(0, n, stray)])
    counts = sparse.csr_array((np.ones(rows.size), (rows, columns)), shape=(n, n))
    return sparse.csr_array(counts + 20 * sparse.eye_array(n)), groups


@pytest.mark.parametrize("seed", range(5))
def test_operator_and_degrees_are_the_papers_b(seed):
    confusion = random_confusion(6, seed)
    b = paper.matrix_b(confusion.toarray().T.tolist())  # the paper's A is C^T
    expected, degrees = paper.normalised(b)
    np.testing.assert_allclose(
        spectral.confusion_degrees(confusion), degrees, rtol=1e-13
    )
    operator = spectral.similarity_operator(confusion, np.array(degrees))
    np.testing.assert_allclose(operator @ np.eye(6), expected, atol=1e-13)
    np.testing.assert_allclose(operator @ np.ones(6), np.sum(expected, 1), atol=1e-13)


def test_orientation_profiles_of_true_classes_not_of_predictions():
    # Classes 0 and 1 are both taken for 2; 3 and 4 both for 5. What is predicted for
    # 2 and 5 themselves is their own column, which only ties them to their victims.
    c = np.zeros((6, 6))
    c[[0, 1, 2], 2] = c[[3, 4, 5], 5] = 1.0
    partition = spectral.partition_classes(
        sparse.csr_array(c), 2, np.random.RandomState(0)
    )
    np.testing.assert_array_equal(partition.labels, [0, 0, 0, 1, 1, 1])


def test_a_degree_is_exactly_zero_where_no_detection_is_shared():
    c = np.diag([0.1, 0.2, 0.3])
    c[0, 1] = 0.7
    degrees = spectral.confusion_degrees(sparse.csr_array(c))
    assert degrees[2] == 0.0
    assert (degrees[:2] > 0.0).all()


@pytest.mark.parametrize("solver", ["leading_eigenvectors", "lanczos_eigenvectors"])
@pytest.mark.parametrize(("n", "k"), [(300, 6), (500, 13)])
@pytest.mark.parametrize("stray", [0, 5, 500])
@pytest.mark.parametrize("seed", range(3))
def test_all_leading_eigenvectors_are_found_repeated_ones_too(
    solver, n, k, stray, seed
):
    confusion, _ = blocks(n, k, seed, stray)
    operator = spectral.similarity_operator(
        confusion, spectral.confusion_degrees(confusion)
    )
    vectors = getattr(spectral, solver)(operator, k, np.random.RandomState(seed))
    dense = operator @ np.eye(n)
    expected = np.linalg.eigvalsh(dense)[-k:]
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-9)
    found = np.linalg.eigvalsh(vectors.T @ dense @ vectors)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("k", [1, 40, 148, 149, 150])
def test_any_number_of_eigenvectors_can_be_asked_for(k):
    confusion, _ = blocks(150, 10, 0)
    operator = spectral.similarity_operator(
        confusion, spectral.confusion_degrees(confusion)
    )
    vectors = spectral.leading_eigenvectors(operator, k, np.random.RandomState(0))
    dense = operator @ np.eye(150)
    found = np.linalg.eigvalsh(vectors.T @ dense @ vectors)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(dense)[-k:], atol=1e-9)


def test_a_chain_without_gaps_falls_back_to_lanczos():
    n, width = 3000, 5
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(n), 30)
    columns = (rows + rng.integers(-width, width + 1, rows.size)) % n
    chain = sparse.csr_array((np.ones(rows.size), (rows, columns)), shape=(n, n))
    operator = spectral.similarity_operator(chain, spectral.confusion_degrees(chain))
    vectors = spectral.leading_eigenvectors(operator, 4, np.random.RandomState(0))
    values = np.einsum("ij,ij->j", vectors, operator @ vectors)
    residual = np.linalg.norm(operator @ vectors - vectors * values, axis=0)
    assert residual.max() < 1e-6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "k"), [(60, 3), (400, 6)])
def test_planted_groups_are_recovered_and_scikit_learn_agrees(n, k, seed):
    confusion, groups = blocks(n, k, seed, stray=5 * n)
    labels = spectral.partition_classes(
        confusion, k, np.random.RandomState(seed)
    ).labels
    peer = SpectralClustering(k, affinity="precomputed", random_state=seed).fit(
        (confusion @ confusion.T).toarray()
    )
    assert adjusted_rand_score(labels, groups) >= 0.99
    assert adjusted_rand_score(labels, peer.labels_) >= 0.99


def test_the_scale_of_the_counts_does_not_matter():
    confusion, _ = blocks(90, 4, 0, stray=300)
    first = spectral.partition_classes(confusion, 4, np.random.RandomState(0))
    second = spectral.partition_classes(
        sparse.csr_array(confusion / 1024.0), 4, np.random.RandomState(0)
    )
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_allclose(
        np.linalg.norm(first.embedding, axis=1), np.ones(90), atol=1e-12
    )


def test_isolated_classes_join_who_they_are_taken_for_else_the_largest_group():
    #              0  1  2  3  4  5  6   true class in rows
    c = np.array(
        [
            [5, 2, 0, 0, 0, 3, 0],  # 0 and 1 are alike, and taken for 5
            [2, 5, 0, 0, 0, 1, 0],
            [0, 0, 5, 2, 2, 0, 0],  # 2, 3 and 4 are alike
            [0, 0, 2, 5, 2, 1, 0],
            [0, 0, 2, 2, 5, 0, 0],
            [0, 0, 0, 0, 0, 0, 0],  # 5 is never true: it goes where it is detected
            [0, 0, 0, 0, 0, 0, 9],  # 6 is never confused: it tells nothing
        ],
        dtype=float,
    )
    partition = spectral.partition_classes(
        sparse.csr_array(c), 2, np.random.RandomState(0)
    )
    np.testing.assert_array_equal(partition.labels, [0, 0, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(partition.isolated, [0, 0, 0, 0, 0, 1, 1])
    assert not partition.embedding[5:].any()


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.float64, (7, 7), elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 9.0])
    ),
    st.integers(0, 3),
)
def test_as_many_groups_as_asked_for_while_the_data_carry_them(dense, seed):
    # Equal profiles, separate parts and repeated eigenvalues are the rule here.
    confusion = sparse.csr_array(dense)
    degrees = spectral.confusion_degrees(confusion)
    connected = np.count_nonzero(degrees)
    for k in range(1, connected + 1):
        partition = spectral.partition_classes(
            confusion, k, np.random.RandomState(seed), degrees
        )
        assert np.unique(partition.labels).tolist() == list(range(k))
        lengths = np.linalg.norm(partition.embedding[degrees > 0], axis=1)
        np.testing.assert_allclose(lengths, 1.0)
        assert not partition.embedding[degrees == 0].any()


@pytest.mark.parametrize("n", [36, 540])
@pytest.mark.parametrize("n_groups", [6, 9])
def test_separate_groups_stay_whole_even_if_there_are_more_than_asked_for(n, n_groups):
    confusion, groups = blocks(n, n_groups, 0)
    labels = spectral.partition_classes(confusion, 6, np.random.RandomState(0)).labels
    for group in range(n_groups):
        assert np.unique(labels[groups == group]).size == 1
