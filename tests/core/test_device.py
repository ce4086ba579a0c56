import time
from unittest.mock import patch

import joblib
import pytest
import torch

from sklearn_structreg.core.device import resolve_device


def device_of_worker(n_devices):
    """The device that "auto" is where there are some GPUs; all tasks run at once."""
    time.sleep(0.5)
    with (
        patch.object(torch.cuda, "is_available", lambda: True),
        patch.object(torch.cuda, "device_count", lambda: n_devices),
    ):
        return str(resolve_device("auto"))


@pytest.mark.parametrize("n_devices", [1, 2])
def test_the_workers_of_a_search_take_turns_at_the_devices(n_devices):
    task = joblib.delayed(device_of_worker)
    found = joblib.Parallel(n_jobs=2)(task(n_devices) for _ in range(4))
    assert set(found) == {f"cuda:{i}" for i in range(n_devices)}


def test_a_process_without_workers_takes_the_current_device():
    assert device_of_worker(2) == "cuda"
