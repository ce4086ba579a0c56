"""The compiled path of ReNA beside the torch path, its oracle."""

import subprocess
import sys
from unittest import mock

import joblib
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sklearn_structreg.dropcluster import ReNAClusterer, _compiled, rena
from sklearn_structreg.dropcluster._compiled import can_compile

LATTICES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def assert_same_as_torch(X, n_clusters, **options):
    with mock.patch.object(_compiled, "_compile", wraps=_compiled._compile) as spy:
        found = rena(X, n_clusters, **options)
    spy.assert_called_once()
    with mock.patch.object(_compiled, "ENABLED", False):
        expected = rena(X, n_clusters, **options)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert found.labels.dtype == expected.labels.dtype
    assert found.n_clusters.dtype == expected.n_clusters.dtype


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 60),
    st.integers(0, 150),
    st.sampled_from([1, 2, 7, 33]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.booleans(),
    st.data(),
)
def test_agrees_on_any_graph(
    seed, n_features, n_edges, n_samples, n_channels, max_iter, weighted, data
):
    X = draw(n_samples, n_channels, n_features, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(n_features, (2, n_edges), generator=generator)
    weight = torch.rand(n_samples, generator=generator) if weighted else None
    k = data.draw(st.integers(1, n_features))
    assert_same_as_torch(X, k, edges=edges, sample_weight=weight, max_iter=max_iter)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**31),
    LATTICES,
    st.integers(1, 20),
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([1e-25, 1.0, 1e25]),
    st.booleans(),
    st.data(),
)
@example(0, [3000], 5, 1, torch.float64, 1.0, False, None)  # more than a block
@example(1, [50, 60], 17, 2, torch.float64, 1e25, True, None)
def test_agrees_on_lattices(
    seed, shape, n_samples, n_channels, dtype, scale, weighted, data
):
    X = draw(n_samples, n_channels, *shape, seed=seed)
    weight = None
    if dtype == torch.float32:
        # Whole numbers, which make ties, but whose first distances are exact.
        X = (2 * X).round()
        max_iter = 1
    else:
        max_iter = 100
        weight = draw(n_samples, seed=seed).square() if weighted else None
    X = (X * 2.0 ** round(torch.tensor(scale).log2().item())).to(dtype)
    n_features = X[0, 0].numel()
    k = n_features // 9 if data is None else data.draw(st.integers(1, n_features))
    assert_same_as_torch(X, k, sample_weight=weight, max_iter=max_iter)


def test_agrees_in_single_precision():
    X = draw(100, 3, 40, 50).float()
    for k in (1, 20, 500, 1999):
        assert_same_as_torch(X, k)


def test_fits_are_the_same():
    X = draw(30, 60).float().numpy()
    found = ReNAClusterer(7, image_shape=(6, 10)).fit(X)
    with mock.patch.object(_compiled, "ENABLED", False):
        expected = ReNAClusterer(7, image_shape=(6, 10)).fit(X)
    assert found.labels_.tolist() == expected.labels_.tolist()
    assert found.n_iter_ == expected.n_iter_


def test_leaves_the_rest_to_torch():
    X = draw(3, 2, 5)
    assert can_compile(X, None)
    for maps in (
        torch.nn.Parameter(X),
        X.to("meta"),
        X[:1, :1, :1].expand(1, 1, 2**31),
    ):
        assert not can_compile(maps, None)


def test_the_package_does_not_import_numba():
    code = (
        "import sys, sklearn_structreg.dropcluster; assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_compiles_where_it_cannot_cache(monkeypatch):
    from numba.core import caching

    X = draw(5, 2, 6, 7)
    expected = rena(X, 5).labels
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    monkeypatch.setattr(_compiled, "_compile", _compiled._compile.__wrapped__)
    assert torch.equal(rena(X, 5).labels, expected)


def test_threads_do_not_disturb_each_other():
    layers = [draw(9, 4, 12, 12, seed=seed) for seed in range(20)]
    expected = [rena(X, 9).labels for X in layers]
    cluster = joblib.delayed(rena)
    found = joblib.Parallel(n_jobs=2, backend="threading")(
        cluster(X, 9) for X in layers
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.labels, other)
