from math import lcm

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from dropcluster.reference import lattice_reference, rena_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from sklearn_structreg.dropcluster import rena
from sklearn_structreg.dropcluster.lattice import graph_edges, lattice_edges

pytestmark = pytest.mark.usefixtures("path")

SHAPES = st.sampled_from([(1,), (7,), (2, 4), (3, 3), (1, 5), (2, 2, 2), (2, 1, 4)])


def divisible(n):
    """A number that the means of n features, of their means and so on divide."""
    return lcm(*range(1, n + 1)) * (divisible(n // 2) if n > 1 else 1)


@st.composite
def problems(draw, max_features=9):
    """A small graph and integer data with many ties, scaled so that means are exact."""
    n = draw(st.integers(1, max_features))
    pairs = [(a, b) for a in range(n) for b in range(a)]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    n_samples = draw(st.integers(1, 3))
    column = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    X = draw(st.lists(column, min_size=n_samples, max_size=n_samples))
    X = np.array(X, dtype=float) * divisible(n)
    return X, edges, draw(st.integers(1, n))


def tensor_of(edges):
    return torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T


def random_images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@settings(max_examples=400, deadline=None)
@given(problems())
def test_equals_the_reference_ties_included(problem):
    X, edges, k = problem
    found = rena(torch.tensor(X), k, edges=tensor_of(edges))
    assert found.labels.tolist() == rena_reference(X, edges, k)
    assert int(found.n_clusters) == len(set(found.labels.tolist()))


@settings(max_examples=200, deadline=None)
@given(problems(max_features=6))
def test_float32_equals_the_reference_where_its_arithmetic_is_exact(problem):
    X, edges, k = problem
    found = rena(torch.tensor(X, dtype=torch.float32), k, edges=tensor_of(edges))
    assert found.labels.tolist() == rena_reference(X, edges, k)


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.data())
def test_lattice_equals_the_reference(shape, data):
    n = int(np.prod(shape))
    k = data.draw(st.integers(1, n))
    values = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    X = np.array(data.draw(st.lists(values, min_size=2, max_size=2)), dtype=float)
    X *= divisible(n)
    found = rena(torch.tensor(X).view(2, 1, *shape), k)
    expected = rena_reference(X, lattice_reference(shape), k)
    assert found.labels.flatten().tolist() == expected
    assert int(found.n_clusters) == k


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(9,), (3, 3), (2, 2, 3)]))
def test_untied_data_equal_the_reference(seed, shape):
    X = random_images(4, 1, *shape, seed=seed)
    rows = X.flatten(1).tolist()
    for k in (1, 3, 5):
        expected = rena_reference(rows, lattice_reference(shape), k)
        assert rena(X, k).labels.flatten().tolist() == expected


@settings(max_examples=100, deadline=None)
@given(problems(), st.data())
def test_weights_count_copies(problem, data):
    X, edges, k = problem
    n = len(X)
    weights = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    if not any(weights):
        weights[0] = 1
    weighted = rena(
        torch.tensor(X),
        k,
        edges=tensor_of(edges),
        sample_weight=torch.tensor(weights),
    )
    assert weighted.labels.tolist() == rena_reference(X, edges, k, weights)
    repeated = rena(
        torch.tensor(np.repeat(X, weights, axis=0)), k, edges=tensor_of(edges)
    )
    assert torch.equal(weighted.labels, repeated.labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(30,), (6, 7), (3, 4, 5)])
def test_channels_together_equal_channels_apart(shape, dtype):
    X = random_images(5, 6, *shape).to(dtype)
    X[:, 1] = X[:, 1].round()  # ties
    X[:, 2] = 0  # a dead channel
    X[:, 3] *= 1e-30 if dtype == torch.float32 else 1e-200
    together = rena(X, 4)
    for channel in range(6):
        alone = rena(X[:, channel : channel + 1], 4)
        assert torch.equal(together.labels[channel], alone.labels[0])
    assert together.n_clusters.tolist() == [4] * 6
    assert together.labels.shape == X.shape[1:]


def test_lattice_and_its_graph_agree():
    X = random_images(5, 3, 6, 7)
    edges = lattice_edges((6, 7))
    for k in (1, 5, 20, 42):
        assert torch.equal(rena(X, k).labels, rena(X, k, edges=edges).labels)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(1, 30),
)
def test_clusters_are_connected_and_counted(seed, dtype, k):
    rng = np.random.default_rng(seed)
    graph = sp.random_array((30, 30), density=0.08, rng=rng)
    graph = graph + graph.T
    n_components = connected_components(graph)[0]
    found = rena(
        random_images(3, 30, seed=seed).to(dtype), k, edges=graph_edges(graph, 30)
    )
    labels = found.labels.numpy()
    n = int(found.n_clusters)
    assert n == max(k, n_components)
    first = np.unique(labels, return_index=True)[1]
    assert len(first) == n
    assert (np.diff(first) > 0).all()
    for label in range(n):
        members = np.flatnonzero(labels == label)
        assert connected_components(graph.tocsr()[members][:, members])[0] == 1


@pytest.mark.parametrize("exponent", [-126, -60, -20, 20, 60, 120])
def test_scale_changes_nothing_in_float32(exponent):
    X = random_images(8, 2, 9, 9).float()
    # What a power of two rounds away must not be there in the first place.
    X = (X * 64).round() / 64 if exponent == -126 else X
    scaled = X.ldexp(torch.tensor(exponent))
    assert torch.equal(rena(X, 7).labels, rena(scaled, 7).labels)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 3.7, 1e170, 1e300])
def test_scale_changes_nothing_in_float64(scale):
    X = random_images(8, 2, 9, 9)
    assert torch.equal(rena(X, 7).labels, rena(X * scale, 7).labels)


def test_scale_of_weights_changes_nothing():
    X = random_images(8, 2, 9, 9).float()
    weights = torch.rand(8, generator=torch.Generator().manual_seed(0))
    plain = rena(X, 7, sample_weight=weights)
    scaled = rena(X, 7, sample_weight=weights.ldexp(torch.tensor(-120)))
    assert torch.equal(plain.labels, scaled.labels)


def test_an_offset_far_from_zero_does_not_hide_differences():
    X = random_images(8, 1, 9, 9)
    assert torch.equal(rena(X, 7).labels, rena(X + 1e6, 7).labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 3e38])
def test_constant_data_reach_the_number_of_clusters(dtype, value):
    X = torch.full((3, 2, 8, 8), value, dtype=dtype)
    found = rena(X, 5)
    assert found.n_clusters.tolist() == [5, 5]


def test_dead_pixels_merge():
    X = random_images(5, 1, 10, 10)
    X[..., 3:7, 3:7] = 0
    labels = rena(X, 60).labels[0]
    assert len(labels[3:7, 3:7].unique()) == 1


def test_the_last_round_makes_the_shortest_links():
    # Three pairs, one link to make: the tightest pair, wherever it stands.
    for order in ([1, 2, 3], [2, 1, 3], [3, 2, 1]):
        pairs = [(100.0 * i, 100.0 * i + gap) for i, gap in enumerate(order)]
        labels = rena(torch.tensor(pairs).view(1, 6), 5).labels.tolist()
        tight = 2 * order.index(1)
        assert labels[tight] == labels[tight + 1]
        assert max(labels) == 4


def test_more_components_than_clusters():
    edges = torch.tensor([[0, 2], [1, 3]])
    found = rena(random_images(3, 2, 5), 1, edges=edges)
    assert found.n_clusters.tolist() == [3, 3]
    assert found.labels.tolist() == [[0, 0, 1, 1, 2]] * 2


def test_max_iter_stops_early():
    X = random_images(3, 64)
    one = rena(X, 2, max_iter=1)
    assert one.n_iter == 1
    assert int(one.n_clusters) > 2
    assert int(one.n_clusters) == int(one.labels.max()) + 1


def test_every_feature_its_own_cluster_and_one_for_all():
    X = random_images(3, 12)
    assert rena(X, 12).labels.tolist() == list(range(12))
    assert rena(X, 12).n_iter == 0
    assert rena(X, 1).labels.tolist() == [0] * 12
    assert rena(X[:, :1], 1).labels.tolist() == [0]


def test_edges_in_any_order_with_loops_and_repetitions():
    X = random_images(3, 6)
    tidy = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    messy = torch.tensor([[5, 1, 2, 3, 3, 1, 0, 4], [4, 0, 1, 2, 4, 1, 1, 5]])
    for k in range(1, 7):
        a, b = rena(X, k, edges=tidy), rena(X, k, edges=messy)
        assert torch.equal(a.labels, b.labels)


def test_input_is_left_alone_and_layout_does_not_matter():
    X = random_images(6, 3, 5, 5)
    X.requires_grad_()
    before = X.detach().clone()
    expected = rena(X, 4).labels
    strided = before.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert torch.equal(rena(strided, 4).labels, expected)
    assert torch.equal(X, before)
    assert not expected.requires_grad


def test_arrays_read_only_and_backwards():
    X = random_images(6, 3, 5, 5)
    expected = rena(X, 4).labels
    frozen = X.numpy().copy()
    frozen.flags.writeable = False
    weights = np.ones(6)[::-1]
    for data in (frozen, X.numpy()[::-1].copy()[::-1], frozen.tolist()):
        assert torch.equal(rena(data, 4, sample_weight=weights).labels, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_other_dtypes_are_computed_in_float32(dtype):
    X = (random_images(6, 2, 5, 5) * 10).to(dtype)
    assert torch.equal(rena(X, 4).labels, rena(X.float(), 4).labels)


@pytest.mark.parametrize("k", [0, -1, 6, 2.5])
def test_impossible_number_of_clusters(k):
    with pytest.raises(ValueError, match=r"n_clusters=.* must be an integer from 1 to"):
        rena(torch.zeros(2, 5), k)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_non_finite_data(bad, dtype):
    X = random_images(4, 2, 3, 3).to(dtype)
    X[2, 1, 1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        rena(X, 2)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3, 0, 4), (4,)])
def test_empty_data(shape):
    with pytest.raises(ValueError, match="at least one sample and one feature"):
        rena(torch.zeros(shape), 1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], "sample_weight has shape"),
        ([0.0, 0.0, 0.0], "at least one sample of positive weight"),
        ([1.0, -1.0, 1.0], "must not be negative"),
        ([1.0, float("nan"), 1.0], "sample_weight contains NaN"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        rena(torch.zeros(3, 4), 2, sample_weight=torch.tensor(weights))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.tensor([0, 1]), r"shape \(2, n_edges\)"),
        (torch.tensor([[0.0], [1.0]]), r"shape \(2, n_edges\)"),
        (torch.tensor([[0], [4]]), "channel of X has features 0 to 3"),
    ],
)
def test_bad_edges(edges, message):
    with pytest.raises(ValueError, match=message):
        rena(torch.zeros(3, 4), 2, edges=edges)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu():
    X = random_images(6, 8, 16, 16)
    X[:, 1] = X[:, 1].round()
    for data in (X, X.float()):
        assert torch.equal(rena(data.cuda(), 9).labels.cpu(), rena(data, 9).labels)
