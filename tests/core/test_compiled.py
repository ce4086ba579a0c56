"""Compilation of loops, announced where it takes long."""

import time
from threading import Lock

import numba
import numpy as np
import pytest
from numba.core import caching

from sklearn_structreg.core import compiled


def double(values):
    for i in range(len(values)):
        values[i] *= 2


@pytest.fixture
def announcements(caplog, monkeypatch, tmp_path):
    """Compile for numbers of a type, as a new process would; return what it says."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "PATIENCE", 0.01)
    monkeypatch.setattr(compiled, "_first", Lock(), raising=False)

    def compile_for(kind):
        caplog.clear()
        values = np.ones(3, kind)
        compiled.compile_loop(double, f"void({kind}[::1])")(values)
        assert values.tolist() == [2, 2, 2]
        return [record.getMessage().partition(";")[0] for record in caplog.records]

    return compile_for


def test_a_compilation_is_announced_once_in_a_process(announcements):
    kinds = ("float64", "float32", "int64")
    found = [announcements(kind) for kind in kinds]
    assert found == [["Compiling inner loops for this machine"], [], []]


def test_machine_code_that_comes_slowly_is_not_announced(announcements, monkeypatch):
    def slowly(*args, load=caching.FunctionCache.load_overload):
        time.sleep(0.1)
        return load(*args)

    with monkeypatch.context() as patch:  # another process leaves machine code
        patch.setattr(compiled, "PATIENCE", 60.0)
        assert announcements("float64") == []
    monkeypatch.setattr(caching.FunctionCache, "load_overload", slowly)
    assert announcements("float64") == []
