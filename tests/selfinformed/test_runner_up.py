"""The short cut to the (K+1)-th best score is exact, whatever the scores look like."""

import numpy as np
import pytest

from sklearn_structreg.selfinformed.runner_up import runner_up

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
@pytest.mark.parametrize("top_k", [1, 2, 17, 39, 600, 2999])
def test_it_is_the_sorted_rows_entry(name, top_k):
    scores = SCORES[name]
    top_k = min(top_k, scores.shape[1] - 1)
    scores.setflags(write=False)
    expected = -np.sort(-scores, axis=1)[:, top_k, None]
    found = runner_up(scores, top_k)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == scores.dtype
