"""Searches on a cluster of processes, and pieces counted over blocks."""

import functools
import itertools
import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, KFold

from sklearn_structreg import (
    CGESClassifier,
    ConfusionSpectralPartitioner,
    ReNAClusterer,
    SpatialHopkins,
    StrengthSearchCV,
)

dask = pytest.importorskip("dask")
arrays = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the cluster's own, in its threads
]
ALPHA = {"alpha": [0.1, 0.3, 1.0, 3.0]}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dask"))
    settings = {
        "temporary-directory": folder,
        "distributed.worker.daemon": False,
        "distributed.comm.timeouts.connect": "60s",
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600]


@pytest.fixture(scope="module")
def splits(digits):
    return list(KFold(2).split(*digits))


def scores(search, digits):
    return search.fit(*digits).cv_results_["mean_test_score"]


def on_cluster(search, digits, splits):
    sent_once = [*digits, *itertools.chain(*splits)]
    with joblib.parallel_config(backend="dask", scatter=sent_once):
        return scores(search.set_params(n_jobs=2), digits)


@pytest.mark.parametrize("kind", [GridSearchCV, StrengthSearchCV])
def test_a_search_is_as_without_the_cluster(client, digits, splits, kind):
    net = CGESClassifier(max_epochs=5, random_state=0)
    search = kind(net, ALPHA, cv=splits, refit=False)
    expected = scores(search, digits)
    found = on_cluster(search, digits, splits)
    np.testing.assert_array_equal(found, expected)


def test_stacks_are_trained_on_the_cluster_and_scored_here(client, digits, splits):
    scored = []

    def scorer(net, X, y):
        scored.append(net)
        return net.score(X, y)

    net = CGESClassifier(max_epochs=2, random_state=0)
    search = StrengthSearchCV(net, ALPHA, cv=splits, scoring=scorer, refit=False)
    on_cluster(search, digits, splits)
    assert len(scored) == 8


def test_clusters_of_blocks(client):
    X = load_digits().data
    given = arrays.from_array(X, chunks=(500, 64))

    def on_workers(function, blocks):
        return dask.compute(*[dask.delayed(function)(block) for block in blocks])

    found = ReNAClusterer(16, image_shape=(8, 8)).fit_blocks(
        list(given.to_delayed().ravel()), mapper=on_workers
    )
    expected = ReNAClusterer(16, image_shape=(8, 8)).fit(X)
    np.testing.assert_array_equal(found.labels_, expected.labels_)


def test_statistics_of_blocks(client):
    X = load_digits().data
    given = arrays.from_array(X, chunks=(500, 64))
    statistic = SpatialHopkins(image_shape=(8, 8), random_state=0).fit(X[:1])
    found = given.map_blocks(
        statistic.transform, dtype=float, chunks=(given.chunks[0], (1,))
    )
    np.testing.assert_array_equal(found.compute(), statistic.transform(X))


def test_confusions_counted_over_blocks(client):
    rng = np.random.default_rng(0)
    given = arrays.from_array(rng.random((600, 12)), chunks=(100, 12))
    y = rng.integers(12, size=600)

    def count(block, rows):
        partitioner = ConfusionSpectralPartitioner(3, top_k=3)
        return partitioner.partial_fit(np.asarray(block), y[rows])

    rows = np.split(np.arange(600), 6)
    blocks = zip(given.to_delayed().ravel(), rows, strict=True)
    counted = [dask.delayed(count)(*each) for each in blocks]
    merged = functools.reduce(
        ConfusionSpectralPartitioner.merge, dask.compute(*counted)
    )
    whole = ConfusionSpectralPartitioner(3, top_k=3).fit(given.compute(), y)
    np.testing.assert_array_equal(merged.labels_, whole.labels_)


def test_a_worker_is_killed_on_the_way(client, digits, splits):
    net = CGESClassifier(max_epochs=20, random_state=0)
    search = StrengthSearchCV(net, ALPHA, cv=splits, refit=False)
    expected = scores(search, digits)
    killed = []

    def kill():
        while not any(client.processing().values()):
            time.sleep(0.05)
        killed.extend(client.run(os.getpid).values())
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    found = on_cluster(search, digits, splits)
    thread.join()
    assert killed
    np.testing.assert_array_equal(found, expected)
