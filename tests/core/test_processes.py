"""One training on several processes, which torchrun starts."""

import subprocess
import sys

import numpy as np
import process_cases
import pytest
import torch
from torch import distributed

from sklearn_structreg.core.state_files import read_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (distributed.is_available() and distributed.is_gloo_available()),
        reason="needs torch.distributed with gloo",
    ),
]


def torchrun(*arguments):
    """Run the script on two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--monitor-interval", "1"]
    command += [process_cases.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A fit one of whose processes was killed: its folder, and how all ended."""
    folder = tmp_path_factory.mktemp("processes")
    return folder, torchrun(folder, "die")


@pytest.fixture(scope="module")
def results(killed):
    """The fits of all cases on both processes, and what was printed."""
    folder = killed[0]
    run = torchrun(folder)
    assert run.returncode == 0, run.stderr
    return *(torch.load(folder / f"{i}.pt", weights_only=False) for i in (0, 1)), run


def assert_close(one, two, tolerance):
    (tensors, figures, predicted), (others, other_figures, other_predicted) = one, two
    assert [t.shape for t in tensors] == [t.shape for t in others]
    for tensor, other in zip(tensors, others, strict=True):
        np.testing.assert_allclose(tensor, other, rtol=tolerance, atol=tolerance)
    assert len(figures) == len(other_figures)
    for row, other in zip(figures, other_figures, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            assert value == pytest.approx(other[name], rel=tolerance, nan_ok=True), name
    np.testing.assert_allclose(predicted, other_predicted, rtol=tolerance)


def test_a_killed_process_ends_all_with_one_sentence(killed):
    folder, run = killed
    assert run.returncode != 0
    [line] = [x for x in run.stderr.splitlines() if "ConnectionError: " in x]
    assert "Another process of this training has ended" in line
    assert "checkpoint='folder'" in line
    [path] = (folder / "fit").glob("training*")
    assert len(read_state(path)["history"]) == process_cases.KILLED_AT - 1


@pytest.mark.parametrize("name", process_cases.cases(None))
def test_fits_on_two_processes_are_those_on_one(results, name):
    (divided, alone), (other,) = (found[name] for found in results[:2])
    assert_close(divided, alone, 1e-9)
    assert_close(divided, other, 0)


def test_each_process_loads_its_share(results):
    loaded = [found["loaded"] for found in results[:2]]
    assert loaded
    print(loaded)


def test_one_process_speaks(results):
    out, err = results[2].stdout, results[2].stderr
    assert out.count("train_loss") == 1
    assert err.count("ConvergenceWarning") == 1
    assert out.count("The processes differ in X; give all of them the same") == 2
