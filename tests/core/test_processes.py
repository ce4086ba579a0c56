"""One training on several processes, which torchrun starts."""

import subprocess
import sys

import numpy as np
import process_cases
import pytest
import torch
from torch import distributed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (distributed.is_available() and distributed.is_gloo_available()),
        reason="needs torch.distributed with gloo",
    ),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All fits on two processes, by each, and all that was printed.

    The first time one of them is killed, and torchrun starts them again.
    """
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", "1"]
    command += ["--monitor-interval", "2"]  # time for the other one to say why it ends
    command += [process_cases.__file__, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return *(torch.load(folder / f"{i}.pt", weights_only=False) for i in (0, 1)), run


def numbers(figure):
    """Return the numbers of nested lists and dictionaries."""
    if isinstance(figure, dict):
        figure = [*figure.values()]
    if isinstance(figure, list | tuple):
        return [number for part in figure for number in numbers(part)]
    return [np.nan if figure is None else float(figure)]


def assert_close(one, two, tolerance):
    (tensors, figures, predicted), (others, other_figures, other_predicted) = one, two
    assert [t.shape for t in tensors] == [t.shape for t in others]
    for tensor, other in zip(tensors, others, strict=True):
        np.testing.assert_allclose(tensor, other, rtol=tolerance, atol=tolerance)
    assert len(figures) == len(other_figures)
    for row, other in zip(figures, other_figures, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            pair = numbers(value), numbers(other[name])
            np.testing.assert_allclose(*pair, tolerance, tolerance, err_msg=name)
    np.testing.assert_allclose(predicted, other_predicted, rtol=tolerance)


def test_a_killed_process_ends_all_with_one_sentence(results):
    first, _, run = results
    [line] = [x for x in run.stderr.splitlines() if "ConnectionError: " in x]
    assert "Another process of this training has ended" in line
    assert "checkpoint='folder'" in line
    assert len(first["left"]) == process_cases.KILLED_AT - 1


@pytest.mark.parametrize("name", process_cases.cases(None))
def test_fits_on_two_processes_are_those_on_one(results, name):
    (divided, alone), (other,) = (found[name] for found in results[:2])
    assert_close(divided, alone, 1e-9)
    assert_close(divided, other, 0)


def test_each_process_loads_its_share(results):
    divided, both = results[0]["dataset, loaded"]
    n_epochs, n_rows = process_cases.SMALL["max_epochs"], len(process_cases.X)
    # Half of these rows, and of as many to validate on; all load those to cluster.
    assert both - 2 * divided == pytest.approx(n_epochs * n_rows, rel=0.01)


def test_one_process_speaks(results):
    out, err = results[2].stdout, results[2].stderr
    assert out.count("train_loss") == 1
    assert err.count("ConvergenceWarning") == 1
    assert out.count("The processes differ in X; give all of them the same") == 2
