"""Mini-batches: every row once, weights beside their rows, copies only."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core import batches as module
from sklearn_structreg.core.batches import DatasetBatches, TensorBatches
from sklearn_structreg.core.data import TrainingData, to_tensor
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.samples import check_samples

CPU = torch.device("cpu")


def tensor_batches(n, batch_size, weight=None):
    X = torch.arange(n, dtype=torch.float32).reshape(n, 1).repeat(1, 3)
    return TensorBatches(X, torch.arange(n), weight, batch_size=batch_size, device=CPU)


@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    seed=st.one_of(st.none(), st.integers(0, 2**62)),
    block_bytes=st.integers(1, 500),
)
def test_every_row_comes_once_in_batches_of_the_size(n, batch_size, seed, block_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", block_bytes)
        batches = tensor_batches(n, batch_size, weight=torch.arange(n) / 10)
    seen = list(batches.epoch(seed))
    assert len(seen) == batches.n_batches
    sizes = [len(y) for _, y, _ in seen]
    assert len(sizes) == -(-n // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    rows = torch.cat([y for _, y, _ in seen])
    assert torch.equal(rows.sort().values, torch.arange(n))
    if seed is None:
        assert torch.equal(rows, torch.arange(n))
    for X, y, weight in seen:
        assert torch.equal(X[:, 0], y.float())
        assert torch.equal(weight, y / 10)


def test_order_follows_the_seed():
    batches = tensor_batches(50, 10)

    def order(seed):
        return torch.cat([y for _, y, _ in batches.epoch(seed)])

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))


def test_a_batch_can_be_written_to():
    for batch_size in (5, 20):
        batches = tensor_batches(20, batch_size)
        for X, _, _ in batches.epoch(None):
            X.zero_()
        assert torch.equal(batches.X[:, 0], torch.arange(20.0))


def test_dataset_batches_are_those_of_the_tensors():
    X, y = torch.randn(23, 4), torch.arange(23)
    weight = torch.rand(23)
    rows = torch.arange(0, 23, 2)
    from_dataset = DatasetBatches(
        TensorDataset(X.double(), y),
        y,
        weight,
        rows=rows,
        spec=TensorSpec((2, 2), torch.float32, CPU),
        batch_size=5,
    )
    from_tensors = TensorBatches(
        X[rows].reshape(-1, 2, 2), y[rows], weight[rows], batch_size=5, device=CPU
    )
    assert from_dataset.n_batches == from_tensors.n_batches == 3
    for seed in (None, 7):
        for one, two in zip(
            from_dataset.epoch(seed), from_tensors.epoch(seed), strict=True
        ):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_read_only_memory_is_viewed_without_a_copy():
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    tensor = to_tensor(array)
    assert tensor.data_ptr() == array.__array_interface__["data"][0]
    np.testing.assert_array_equal(tensor.numpy(), array)


@given(
    st.lists(st.tuples(st.sampled_from([-0.0, 0.0, 1.5, -2.0]), st.integers(0, 1))),
    st.booleans(),
)
def test_equal_rows_merge_by_their_total_weight(pairs, weighted):
    pairs = [*pairs, (0.0, 0)]
    X = np.array([[x, 1.0] for x, _ in pairs], dtype=np.float32)
    y = np.array([label for _, label in pairs])
    weight = np.arange(1.0, len(pairs) + 1) if weighted else None
    totals = {}
    for (x, label), w in zip(
        pairs, weight if weighted else np.ones(len(y)), strict=True
    ):
        totals[x, label] = totals.get((x, label), 0) + w  # -0.0 and 0.0 are one key
    spec = TensorSpec((2,), torch.float64, CPU)
    data = TrainingData.from_arrays(X, y, weight)
    merged = data.batches(spec, batch_size=len(y), normalize=True)
    (got_X, got_y, got_weight), *rest = merged.epoch(0)
    assert not rest
    mean = sum(totals.values()) / len(totals)
    if got_weight is None:
        assert len(set(totals.values())) == 1
        got_weight = torch.ones(len(got_y))
    got = {
        (float(x), int(label)): float(w) * mean
        for x, label, w in zip(got_X[:, 0], got_y, got_weight, strict=True)
    }
    assert got.keys() == totals.keys()
    for key, total in totals.items():
        assert got[key] == pytest.approx(total)


def test_parts_of_the_data_are_no_copies(tmp_path):
    """Held-out rows, weights of zero, equal rows, and files that are mapped."""
    path = tmp_path / "X"
    rng = np.random.default_rng(0)
    np.memmap(path, np.float32, "w+", shape=(50, 6))[:] = rng.integers(2, size=(50, 6))
    X = np.memmap(path, np.float32, "r", shape=(50, 6))
    model = StructuredClassifier(max_epochs=1)
    rows = check_samples(model, X, np.arange(50), dtype=None).rows
    weight = np.arange(50.0) % 3
    data = TrainingData.from_arrays(rows, np.arange(50) % 2, weight)
    spec = TensorSpec((6,), torch.float32, CPU)
    for part in (*data.split(0.3, seed=0), data, data.with_equal_rows_merged()):
        batches = part.batches(spec, batch_size=50, normalize=True)
        assert batches._X.data_ptr() == X.ctypes.data
        (samples, y, _), *rest = batches.epoch(0)
        assert not rest
        assert torch.equal(batches.X, samples)  # as callbacks see them
        assert torch.equal(batches[1][0], samples[1])
        assert set(zip(map(tuple, samples.tolist()), y.tolist(), strict=True)) == {
            (tuple(X[row].tolist()), row % 2) for row in part.rows
        }
