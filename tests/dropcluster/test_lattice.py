import numpy as np
import pytest
import scipy.sparse as sp
from dropcluster.reference import lattice_reference
from hypothesis import given
from hypothesis import strategies as st

from sklearn_structreg.dropcluster.lattice import graph_edges, lattice_edges


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_lattice_equals_the_reference(shape):
    edges = lattice_edges(shape)
    assert list(map(tuple, edges.T.tolist())) == lattice_reference(shape)


@pytest.mark.parametrize("kind", [sp.csr_array, sp.coo_matrix, sp.lil_array, np.array])
def test_graph_keeps_pairs_in_order_and_drops_the_diagonal(kind):
    matrix = np.array([[3, 0, 2, 0], [0, 0, 1, 0], [2, 1, 5, -1], [0, 0, -1, 0]])
    edges = graph_edges(kind(matrix), 4)
    assert edges.tolist() == [[0, 1, 2], [2, 2, 3]]


def test_stored_zeros_are_no_edges():
    stored = sp.coo_array(([1.0, 1.0, 0.0], ([0, 1, 1], [1, 0, 2])), shape=(3, 3))
    assert graph_edges(stored, 3).tolist() == [[0], [1]]


def test_entries_that_cancel_or_repeat():
    twice = sp.coo_array(([1.0, 1.0, 2.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assert graph_edges(twice, 2).tolist() == [[0], [1]]
