import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import kneighbors_graph
from sklearn.pipeline import make_pipeline

from sklearn_structreg.dropcluster import ReNAClusterer, rena


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def test_image_shape_and_grid_graph_agree(digits):
    X = digits[0]
    lattice = ReNAClusterer(16, image_shape=(8, 8)).fit(X)
    graph = ReNAClusterer(16, connectivity=grid_to_graph(8, 8)).fit(X)
    np.testing.assert_array_equal(lattice.labels_, graph.labels_)
    assert lattice.n_clusters_ == 16
    assert lattice.converged_
    assert lattice.n_iter_ == graph.n_iter_ > 0


def test_no_graph_is_a_chain():
    X = np.array([[0.0, 0.1, 9.0, 9.1, 0.05, 0.0]])
    labels = ReNAClusterer(3).fit(X).labels_
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_volume():
    X = np.random.default_rng(0).normal(size=(5, 3 * 4 * 5))
    labels = ReNAClusterer(6, image_shape=(1, 3, 4, 5)).fit(X).labels_
    expected = rena(torch.from_numpy(X).view(5, 1, 3, 4, 5), 6).labels
    np.testing.assert_array_equal(labels, expected.numpy().ravel())


def test_mask_through_grid_to_graph(digits):
    X = digits[0]
    mask = X.std(axis=0).reshape(8, 8) > 0
    graph = grid_to_graph(8, 8, mask=mask)
    clusterer = ReNAClusterer(10, connectivity=graph).fit(X[:, mask.ravel()])
    assert clusterer.labels_.shape == (mask.sum(),)
    assert clusterer.n_clusters_ == 10


def test_channels_as_one_disjoint_graph(digits):
    X = digits[0][:200]
    both = np.hstack([X, X[::-1]])
    graph = sp.block_diag([grid_to_graph(8, 8)] * 2)
    clusterer = ReNAClusterer(30, connectivity=graph).fit(both)
    assert set(clusterer.labels_[:64]).isdisjoint(clusterer.labels_[64:])
    images = both.reshape(-1, 2, 8, 8)
    for data, shape in [(both, (2, 8, 8)), (images, None), (images, (2, 8, 8))]:
        found = ReNAClusterer(30, image_shape=shape).fit(data)
        np.testing.assert_array_equal(found.labels_, clusterer.labels_)
        np.testing.assert_array_equal(found.transform(data), clusterer.transform(both))


def test_one_channel_with_and_without_its_axis(digits):
    images = digits[0].reshape(-1, 1, 8, 8)
    expected = ReNAClusterer(16, image_shape=(8, 8)).fit(digits[0]).labels_
    for data, shape in [
        (images, None),
        (images, (8, 8)),
        (images[:, 0], None),
        (images[:, 0], (8, 8)),
        (digits[0], (1, 8, 8)),
    ]:
        found = ReNAClusterer(16, image_shape=shape).fit(data)
        np.testing.assert_array_equal(found.labels_, expected)
    with pytest.raises(ValueError, match=r"in samples of shape \(1, 8, 8\)"):
        ReNAClusterer(16, image_shape=(4, 16)).fit(images)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_transform_averages_and_inverse_spreads(seed, k):
    X = np.random.default_rng(seed).normal(size=(7, 12))
    clusterer = ReNAClusterer(k, image_shape=(3, 4)).fit(X)
    means = clusterer.transform(X)
    expected = [X[:, clusterer.labels_ == label].mean(axis=1) for label in range(k)]
    np.testing.assert_allclose(means, np.transpose(expected), rtol=1e-12, atol=1e-14)
    spread = clusterer.inverse_transform(means)
    np.testing.assert_array_equal(spread, means[:, clusterer.labels_])
    # Averaging is a projection.
    np.testing.assert_allclose(clusterer.transform(spread), means, atol=1e-14)
    # Eq. 1: one row per cluster, constant on it, and of length one.
    phi = (clusterer.labels_ == np.arange(k)[:, None]).astype(float)
    phi /= np.linalg.norm(phi, axis=1, keepdims=True)
    np.testing.assert_allclose(phi @ phi.T, np.eye(k), atol=1e-14)
    clusterer.set_params(scaling="orthonormal")
    np.testing.assert_allclose(clusterer.transform(X), X @ phi.T, atol=1e-13)
    back = clusterer.inverse_transform(clusterer.transform(X))
    np.testing.assert_allclose(back, X @ phi.T @ phi, atol=1e-13)
    np.testing.assert_allclose(back, spread, atol=1e-13)


@pytest.mark.parametrize(
    "graph", [{"image_shape": (8, 8)}, {"connectivity": grid_to_graph(8, 8)}]
)
def test_blocks_of_rows_are_as_all_rows_together(digits, graph):
    X = digits[0]
    whole = ReNAClusterer(16, **graph).fit(X)
    with ThreadPoolExecutor(2) as pool:
        parts = ReNAClusterer(16, **graph).fit_blocks(
            [X[:100], X[100:900].reshape(-1, 8, 8), X[900:].astype("float32")],
            mapper=pool.map,
        )
    np.testing.assert_array_equal(parts.labels_, whole.labels_)
    assert parts.n_iter_ == whole.n_iter_
    np.testing.assert_array_equal(parts.transform(X), whole.transform(X))


@pytest.mark.parametrize(
    ("clusterer", "blocks", "message"),
    [
        (ReNAClusterer(4), [np.zeros((2, 9))], "set image_shape, .* or connectivity"),
        (ReNAClusterer(4, image_shape=(3, 3)), iter([]), "there are no blocks"),
        (ReNAClusterer(4, image_shape=(3, 3)), [np.zeros((2, 8))], "8 features a row"),
        (ReNAClusterer(4, image_shape=(3, 3)), [[[np.nan] * 9]], "contains NaN"),
        (ReNAClusterer(4, image_shape=(3,)), [np.zeros((2, 3))], "n_clusters=4 is"),
        (
            ReNAClusterer(4, image_shape=(3, 3)),
            [[[1e200, *[0.0] * 8]]],
            "divide the data",
        ),
    ],
)
def test_blocks_that_cannot_be_clustered(clusterer, blocks, message):
    with pytest.raises(ValueError, match=message):
        clusterer.fit_blocks(blocks)


def test_weight_zero_is_absent_and_weight_k_is_k_copies(digits):
    X = digits[0][:100]
    weights = np.random.default_rng(0).integers(0, 4, size=100)
    weighted = ReNAClusterer(12, image_shape=(8, 8)).fit(X, sample_weight=weights)
    repeated = ReNAClusterer(12, image_shape=(8, 8)).fit(np.repeat(X, weights, axis=0))
    np.testing.assert_array_equal(weighted.labels_, repeated.labels_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(digits, dtype):
    X = digits[0].astype(dtype)
    clusterer = ReNAClusterer(9, image_shape=(8, 8)).fit(X)
    means = clusterer.transform(X)
    assert means.dtype == dtype
    assert clusterer.inverse_transform(means).dtype == dtype
    assert clusterer.labels_.dtype == np.int64


def test_layout_and_writability_do_not_matter(digits):
    X = digits[0].copy()
    expected = ReNAClusterer(9, image_shape=(8, 8)).fit(X)
    frozen = X.copy()
    frozen.flags.writeable = False
    for data in (frozen, np.asfortranarray(X), X[::-1][::-1], X.astype(int)):
        found = clone(expected).fit(data)
        np.testing.assert_array_equal(found.labels_, expected.labels_)
        np.testing.assert_allclose(found.transform(data), expected.transform(X))
    np.testing.assert_array_equal(X, digits[0])


def test_names_pandas_and_pickles(digits):
    X = pd.DataFrame(digits[0], columns=[f"pixel{i}" for i in range(64)])
    clusterer = ReNAClusterer(5, image_shape=(8, 8)).set_output(transform="pandas")
    means = clusterer.fit_transform(X)
    names = [f"renaclusterer{i}" for i in range(5)]
    assert list(means.columns) == names == list(clusterer.get_feature_names_out())
    assert list(clusterer.feature_names_in_) == list(X.columns)
    again = pickle.loads(pickle.dumps(clusterer))
    pd.testing.assert_frame_equal(again.transform(X), means)
    assert not any(isinstance(v, torch.Tensor) for v in vars(clusterer).values())


def test_grid_search_in_a_pipeline(digits):
    X, y = digits[0][:200], digits[1][:200]
    pipeline = make_pipeline(
        ReNAClusterer(image_shape=(8, 8)), LogisticRegression(C=0.01, max_iter=500)
    )
    search = GridSearchCV(pipeline, {"renaclusterer__n_clusters": [2, 32]}, cv=2)
    search.fit(X, y)
    assert search.best_params_ == {"renaclusterer__n_clusters": 32}
    assert search.best_score_ > 0.8


def test_global_random_state_is_left_alone(digits):
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    ReNAClusterer(5).fit(digits[0])
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_state, torch.get_rng_state())


def test_constant_data_converge():
    clusterer = ReNAClusterer(4).fit(np.ones((3, 10)))
    assert clusterer.n_clusters_ == 4
    assert clusterer.converged_


def test_more_components_than_clusters_warns():
    X = np.random.default_rng(0).normal(size=(4, 6))
    graph = sp.block_diag([np.ones((2, 2))] * 3)
    with pytest.warns(ConvergenceWarning, match="stopped at 3 clusters instead of 2"):
        clusterer = ReNAClusterer(2, connectivity=graph).fit(X)
    assert clusterer.n_clusters_ == 3
    assert not clusterer.converged_
    assert clusterer.transform(X).shape == (4, 3)


def test_max_iter_too_low_warns():
    X = np.random.default_rng(0).normal(size=(4, 64))
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        assert ReNAClusterer(2, max_iter=1).fit(X).n_iter_ == 1


def test_asymmetric_neighbors_say_what_to_do(digits):
    X = digits[0]
    graph = kneighbors_graph(X.T, 5)
    with pytest.raises(ValueError, match=r"not symmetric.*connectivity\.T"):
        ReNAClusterer(5, connectivity=graph).fit(X)
    ReNAClusterer(5, connectivity=graph + graph.T).fit(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_clusters": 7}, "n_clusters=7 is more than n_features=6"),
        ({"n_clusters": 0}, "'n_clusters' parameter"),
        ({"n_clusters": 2.5}, "'n_clusters' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"image_shape": (2, 4)}, "does not fit n_features=6"),
        ({"image_shape": 6}, "'image_shape' parameter"),
        ({"image_shape": (1, 1, 1, 2, 3)}, "does not fit n_features=6"),
        ({"image_shape": (-2, -3)}, "does not fit n_features=6"),
        ({"image_shape": (2.0, 3.0)}, "does not fit n_features=6"),
        ({"connectivity": np.ones((5, 5))}, r"shape \(5, 5\), but X has 6 features"),
        ({"connectivity": sp.eye_array(6, 7)}, r"shape \(6, 7\), but X has 6"),
        ({"connectivity": np.triu(np.ones((6, 6)))}, "not symmetric"),
        ({"connectivity": [["a"]]}, "array of numbers"),
        ({"connectivity": np.ones((6, 6)), "image_shape": (6,)}, "pass one of them"),
        ({"device": "abacus"}, "device='abacus' is not a device"),
    ],
)
def test_bad_parameters(parameters, message):
    X = np.arange(12.0).reshape(2, 6)
    with pytest.raises(ValueError, match=message):
        ReNAClusterer(**parameters).fit(X)


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="asks for a missing device: cuda is there"
)
def test_missing_gpu():
    with pytest.raises(ValueError, match="was asked for, but torch finds"):
        ReNAClusterer(device="cuda").fit(np.ones((2, 3)))
    ReNAClusterer(device="auto").fit(np.ones((2, 3)))


def test_not_fitted():
    with pytest.raises(NotFittedError):
        ReNAClusterer().inverse_transform(np.ones((2, 2)))
