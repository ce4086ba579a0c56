import time
from unittest.mock import patch

import joblib
import pytest
import torch

from sklearn_structreg.core.device import resolve_device


@pytest.fixture
def device_of_worker():
    """The device that "auto" is where there are some GPUs."""

    def device(n_devices):  # in here, so that it is sent to the workers as a whole
        time.sleep(0.5)  # all tasks run at once
        with (
            patch.object(torch.cuda, "is_available", lambda: True),
            patch.object(torch.cuda, "device_count", lambda: n_devices),
        ):
            return str(resolve_device("auto"))

    return device


@pytest.mark.parametrize("n_devices", [1, 2])
def test_the_workers_of_a_search_take_turns_at_the_devices(n_devices, device_of_worker):
    task = joblib.delayed(device_of_worker)
    found = joblib.Parallel(n_jobs=2)(task(n_devices) for _ in range(4))
    assert set(found) == {f"cuda:{i}" for i in range(n_devices)}


def test_a_process_without_workers_takes_the_current_device(device_of_worker):
    assert device_of_worker(2) == "cuda"
