"""Files of nested values: what is read is what was written, or an error."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError

from sklearn_structreg.core import state_files
from sklearn_structreg.core.state_files import read_state, write_state

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
dtypes = (
    hnp.integer_dtypes()
    | hnp.unsigned_integer_dtypes()
    | hnp.floating_dtypes(sizes=(16, 32, 64))
    | hnp.boolean_dtypes()
)
shapes = hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3)
arrays = hnp.arrays(dtypes, shapes)
letters = st.characters(exclude_characters="\0")  # NumPy cuts it off at the end
texts = hnp.arrays(
    np.dtype("U3"), hnp.array_shapes(max_dims=2), elements=st.text(letters, max_size=3)
)
leaves = plain | arrays | texts | arrays.map(lambda a: a[..., None][..., 0])
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=3)
        | st.just(slice(1, None, 2))
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


def same(one, two):
    """Compare with types, so that 1, 1.0, True and np.int64(1) all differ."""
    if type(one) is not type(two):
        return False
    if isinstance(one, np.ndarray | np.generic):
        numbers = one.dtype.kind in "fc"
        native = one.dtype.newbyteorder("=") == two.dtype
        return native and np.array_equal(one, two, equal_nan=numbers)
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(v, two[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two or (one != one and two != two)


@given(values)
@settings(max_examples=200, deadline=None)
def test_what_is_read_is_what_was_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.state"
    write_state(path, value)
    assert same(value, read_state(path))


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(6.0).reshape(2, 3).T,
        torch.tensor(3, dtype=torch.bfloat16),
        np.float32(0.1),
        np.float64("nan"),
        np.bool_(True),
        np.array(["a", 1, None], dtype=object),
        {"__kind__": "tuple", "items": [1]},
        {1: "a", (2, 3): {None: torch.zeros(0, 2)}},
    ],
)
def test_tensors_scalars_and_odd_keys(tmp_path, value):
    write_state(tmp_path / "a.state", [value, value])
    assert same([value, value], read_state(tmp_path / "a.state"))


def test_a_value_without_a_form_is_named_by_its_place(tmp_path):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is of type object"):
        write_state(tmp_path / "a.state", {"a": [0, object()]})
    assert not list(tmp_path.iterdir())


def test_every_flipped_bit_and_every_cut_is_an_error(tmp_path):
    path, state = tmp_path / "a.state", {"a": torch.tensor([1.5, 2.5]), "b": [1, "x"]}
    write_state(path, state)
    good = path.read_bytes()
    for position in range(8 * len(good)):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="damaged"):
            read_state(path)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match="damaged"):
            read_state(path)


def test_no_file_and_another_kind_of_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_state(tmp_path / "a.state")
    (tmp_path / "b.state").write_text("hello")
    with pytest.raises(ValueError, match=r"b\.state' is damaged or was not written"):
        read_state(tmp_path / "b.state")


def test_a_file_is_readable_by_those_who_may_read_any_new_one(tmp_path):
    (tmp_path / "any").touch()
    write_state(tmp_path / "a.state", {})
    modes = [(tmp_path / name).stat().st_mode for name in ("any", "a.state")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("mode", [0o600, 0o444])
def test_a_file_that_is_there_keeps_its_permissions_and_links(tmp_path, mode):
    path, link = tmp_path / "a.state", tmp_path / "link"
    write_state(path, {"a": 1})
    path.chmod(mode)
    link.symlink_to(path)
    write_state(link, {"a": 2})
    assert link.is_symlink()
    assert read_state(path) == {"a": 2}
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    "error", [PermissionError(13, "No right", ".hidden"), SafetensorError("Disk full")]
)
def test_a_write_that_fails_names_the_file(tmp_path, monkeypatch, error):
    def failing(*args):
        raise error

    monkeypatch.setattr(state_files, "save_file", failing)
    path = tmp_path / "a.state"
    with pytest.raises(OSError, match=r"a\.state' cannot be written: (No r|Disk)"):
        write_state(path, {})
    assert not list(tmp_path.iterdir())


def test_an_array_without_a_form_is_named_by_its_numbers(tmp_path):
    dates = np.array(["2020-01-01"], "datetime64[D]")
    with pytest.raises(TypeError, match=r"ndarray of dtype datetime64\[D\]"):
        write_state(tmp_path / "a.state", dates)


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "a.state"
    write_state(path, {"a": 1})

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_state(path, {"a": 2})
    assert read_state(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.state"]
