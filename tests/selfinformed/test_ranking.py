"""The short cut to the k-th largest score is exact for all kinds of scores."""

import numpy as np
import pytest

from sklearn_structreg.selfinformed.ranking import kth_largest

RNG = np.random.default_rng(0)
RANDOM = RNG.random((20, 3000))
SCORES = {
    "random": RANDOM,
    "single precision": RANDOM.astype(np.float32),
    "negative": np.log(RANDOM),
    "sorted": np.sort(RANDOM, axis=1),
    "constant": np.zeros((20, 3000)),
    "mostly zero": np.where(RANDOM > 0.999, RANDOM, 0.0),
    "ties": np.round(RANDOM, 2),
    "best where the sample looks": RANDOM + (np.arange(3000) % 8 == 0),
    "best where it does not": RANDOM + (np.arange(3000) % 8 != 0),
    "one odd row": np.vstack([RANDOM, np.zeros((1, 3000))]),
    "few columns": RANDOM[:, :40],
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("k", [2, 3, 18, 40, 601, 3000])
def test_it_is_the_sorted_rows_entry(name, k):
    scores = SCORES[name]
    k = min(k, scores.shape[1])
    scores.setflags(write=False)
    expected = -np.sort(-scores, axis=1)[:, k - 1, None]
    found = kth_largest(scores, k)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == scores.dtype
