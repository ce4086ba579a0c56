"""Searches on a cluster of processes, and pieces counted over blocks."""

import functools
import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from sklearn_structreg import (
    CGESClassifier,
    ConfusionSpectralPartitioner,
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


def scores(search, digits):
    return search.fit(*digits).cv_results_["mean_test_score"]


def on_cluster(search, digits):
    with joblib.parallel_config(backend="dask", scatter=[digits[0]]):
        return scores(search, digits)


@pytest.mark.parametrize("kind", [GridSearchCV, StrengthSearchCV])
def test_a_search_is_as_without_the_cluster(client, digits, kind):
    net = CGESClassifier(max_epochs=5, random_state=0)
    search = kind(net, ALPHA, cv=2, refit=False)
    expected = scores(search, digits)
    found = on_cluster(search.set_params(n_jobs=2), digits)
    np.testing.assert_array_equal(found, expected)


def test_a_worker_is_killed_on_the_way(client, digits):
    net = CGESClassifier(max_epochs=20, random_state=0)
    search = GridSearchCV(net, ALPHA, cv=2, refit=False)
    expected = scores(search, digits)
    killed = []

    def kill():
        while not any(client.processing().values()):
            time.sleep(0.05)
        killed.extend(client.run(os.getpid).values())
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    found = on_cluster(search.set_params(n_jobs=2), digits)
    thread.join()
    assert killed
    np.testing.assert_array_equal(found, expected)


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
