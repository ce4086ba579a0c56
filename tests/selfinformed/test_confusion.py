"""The counting, Eqs. 1-4, against loops written from the paper."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from selfinformed import paper

from sklearn_structreg.selfinformed.confusion import (
    SparseSum,
    check_counts,
    confusion_counts,
    top_k_indicator,
    truth_indicator,
)

# Few distinct values, so that ties are the rule and not the exception.
scores_with_ties = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
    elements=st.integers(-3, 3).map(float),
)


@settings(deadline=None)
@given(scores_with_ties, st.data())
def test_top_k_is_equation_2(scores, data):
    k = data.draw(st.integers(1, scores.shape[1]))
    expected = [paper.top_k(row, k) for row in scores.tolist()]
    detected = top_k_indicator(scores, k)
    np.testing.assert_array_equal(detected.toarray(), expected)
    assert detected.has_canonical_format


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_ties_exactly_k_are_detected_whatever_the_chunks(dtype, monkeypatch):
    scores = np.random.default_rng(0).permuted(
        np.tile(np.arange(50, dtype=dtype), (30, 1)), axis=1
    )
    whole = top_k_indicator(scores, 7)
    assert (whole.sum(axis=1) == 7).all()
    monkeypatch.setattr("sklearn_structreg.selfinformed.confusion._CHUNK_BYTES", 1)
    np.testing.assert_array_equal(top_k_indicator(scores, 7).toarray(), whole.toarray())
    np.testing.assert_array_equal(whole.toarray(), scores >= 43)


def test_equal_scores_detect_nothing_and_scores_are_not_changed():
    scores = np.zeros((3, 4))
    scores.setflags(write=False)
    assert top_k_indicator(scores, 2).nnz == 0


@settings(max_examples=50, deadline=None)
@given(
    scores_with_ties,
    st.booleans(),
    st.data(),
)
def test_counts_are_equations_3_and_4(scores, codetection, data):
    n_samples, n_classes = scores.shape
    k = data.draw(st.integers(1, n_classes))
    weight = data.draw(
        hnp.arrays(
            np.float64, n_samples, elements=st.sampled_from([0.0, 0.25, 1.0, 3.0])
        )
    )
    assume(weight.any())
    detected = top_k_indicator(scores, k)
    if codetection:
        truth = detected
    else:
        truth = sparse.csr_array(
            data.draw(hnp.arrays(np.bool_, scores.shape)).astype(np.float64)
        )
    counts = confusion_counts(detected, truth, weight)
    a = paper.matrix_a(detected.toarray(), truth.toarray(), weight.tolist())
    np.testing.assert_allclose(counts.toarray().T / weight.sum(), a, rtol=1e-13)
    assert (counts.data != 0.0).all()  # weight zero leaves no stored zeros behind


def test_truth_indicator_has_an_empty_row_for_a_class_without_a_column():
    truth = truth_indicator(np.array([2, -1, 0]), 3)
    np.testing.assert_array_equal(truth.toarray(), [[0, 0, 1], [0, 0, 0], [1, 0, 0]])


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_a_sparse_sum_is_the_sum(sizes):
    rng = np.random.default_rng(len(sizes))
    matrices = [
        sparse.csr_array(
            (np.ones(n), (rng.integers(0, 6, n), rng.integers(0, 6, n))), shape=(6, 6)
        )
        for n in sizes
    ]
    total = SparseSum()
    for matrix in matrices:
        total.add(matrix)
    expected = sum(matrix.toarray() for matrix in matrices)
    np.testing.assert_array_equal(total.value().toarray(), expected)
    np.testing.assert_array_equal(total.value().toarray(), expected)


def test_a_sparse_sum_keeps_few_parts():
    total = SparseSum()
    for i in range(1000):
        total.add(sparse.csr_array(([1.0], ([i % 40], [i // 40])), shape=(40, 40)))
    assert len(total.parts) <= 11


def test_a_given_matrix_is_copied_and_cleaned():
    given_matrix = np.array([[1.0, 0.0], [2.0, 3.0]])
    counts = check_counts(given_matrix)
    counts.data[:] = 7.0
    assert given_matrix[0, 0] == 1.0
    assert counts.nnz == 3
