"""The compiled path of the proximal operators beside the torch path, its oracle."""

import pickle
from unittest import mock

import joblib
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone

from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import (
    _compiled,
    _loops,
    prox_cges,
    prox_exclusive_lasso,
    prox_group_lasso,
)
from sklearn_structreg.cges._compiled import BoundWeight, shrink_compiled
from sklearn_structreg.cges._thresholds import Strength

# Each as a function of weights, group threshold, exclusive strength and dimensions.
OPERATORS = {
    "group": lambda w, a, b, dim, **out: prox_group_lasso(w, a, dim, **out),
    "exclusive": lambda w, a, b, dim, **out: prox_exclusive_lasso(w, b, dim, **out),
    "paper": lambda w, a, b, dim, **out: prox_exclusive_lasso(w, b, dim, False, **out),
    "cges": prox_cges,
    "cges-paper": lambda w, a, b, dim, **out: prox_cges(w, a, b, dim, False, **out),
}
SINGLE_THEN_DOUBLE = [torch.float32, torch.float64]
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
strengths = st.floats(-8.0, 1.0).map(lambda exponent: 10.0**exponent)
linear = st.tuples(st.integers(1, 40), st.integers(1, 150))
convolution = st.tuples(*[st.integers(1, 8)] * 4)


def draw(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def without_compilation():
    return mock.patch.object(_compiled, "ENABLED", False)


@pytest.fixture
def compiled(monkeypatch):
    """Count the calls that were not left to torch."""
    spy = mock.Mock(wraps=_compiled._plan)
    monkeypatch.setattr(_compiled, "_plan", spy)
    return spy


@every_operator
@pytest.mark.parametrize("dtype", SINGLE_THEN_DOUBLE)
@given(
    shape=st.one_of(linear, convolution),
    by_filter=st.booleans(),
    group=strengths,
    exclusive=strengths,
    seed=st.integers(0, 1000),
)
@example((1500, 200), False, 1e-3, 1e-6, 0)  # cut into blocks of columns
@example((1500, 200), False, 1e-3, 1e-2, 0)
@settings(max_examples=50, deadline=None)
def test_agrees_with_torch(operator, dtype, shape, by_filter, group, exclusive, seed):
    w = draw(*shape, seed=seed, dtype=dtype)
    w[w.abs() < 0.1] = 0.0
    dim = tuple(range(1 - w.ndim, 0)) if by_filter else (-w.ndim,)
    before = w.clone()
    shrunk = operator(w, group, exclusive, dim)
    assert torch.equal(w, before)
    with without_compilation():
        expected = operator(w, group, exclusive, dim)
    assert shrunk.dtype == dtype
    assert shrunk.shape == w.shape
    # In units of the largest weight: single weights are differences that cancel.
    few_ulps = 8.0 * torch.finfo(dtype).eps
    assert_allclose(shrunk, expected, rtol=0.0, atol=few_ulps * float(w.abs().max()))
    assert not torch.signbit(shrunk[shrunk == 0.0]).any()
    operator(w, group, exclusive, dim, out=w)
    assert torch.equal(w, shrunk)


@every_operator
@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((7,), [0, (-1,)]),
        ((6, 5), [0, -2, (0,), 1, (-1,), (0, 1), (1, 0)]),
        ((4, 3, 2, 5), [0, (-4,), (1, 2, 3), (-1, 2, -3), (0, 1), (2, 3)]),
    ],
)
def test_groups_over_leading_or_trailing_dimensions(operator, shape, dims, compiled):
    w = draw(*shape)
    for dim in dims:
        shrunk = operator(w, 0.1, 0.1, dim)
        compiled.assert_called_once()
        compiled.reset_mock()
        with without_compilation():
            assert_allclose(shrunk, operator(w, 0.1, 0.1, dim), rtol=0.0, atol=1e-6)


def test_leaves_the_rest_to_torch():
    plain = draw(6, 5, 4)
    rest = [
        (plain, 0.1, (0, 2)),
        (plain, 0.1, [0]),
        (plain, 0.1, (0, 0)),
        (plain, 0.1, 3),
        (plain, torch.tensor(0.1), 0),
        (plain.bfloat16(), 0.1, 0),
        (plain[:, :, ::2], 0.1, 0),
        (plain.mT, 0.1, 0),
        (plain.to("meta"), 0.1, 0),
        (plain[:0], 0.1, -1),
        (plain.sum(), 0.1, 0),
        (plain.double(), 1e-200, 0),
        (plain.clone().requires_grad_(), 0.1, 0),
    ]
    for w, value, dim in rest:
        strength = Strength(value, 0.1, 0.1)
        assert shrink_compiled(w, strength, strength, dim, True, None) is None
    strength = Strength(0.1, 0.1, 0.1)
    wrong = torch.empty(6, 5, 3)
    assert shrink_compiled(plain, strength, None, 0, True, wrong) is None
    assert shrink_compiled(plain, strength, None, 0, True, None) is not None


@every_operator
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("strength", [1e-6, 0.5])
def test_nan_spoils_its_group_only(operator, dim, enabled, strength, monkeypatch):
    monkeypatch.setattr(_compiled, "ENABLED", enabled)
    w = draw(5, 5)
    w[2, 2] = float("nan")
    shrunk = operator(w, strength, strength, dim)
    group = shrunk.select(1 - dim, 2)
    assert group.isnan().all()
    assert shrunk.isnan().sum() == group.numel()


@every_operator
def test_autograd_notices_a_change_in_place(operator, compiled):
    w = draw(3, 4).requires_grad_()
    loss = (w * w).sum()
    with torch.no_grad():
        operator(w, 0.1, 0.1, 0, out=w)
    assert compiled.called
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@every_operator
def test_out_of_its_own(operator):
    w = draw(6, 5)
    expected = operator(w, 0.1, 0.1, 0)
    for out in [torch.empty(6, 5), torch.empty(5, 6).T, torch.empty(6, 10)[:, ::2]]:
        assert operator(w, 0.1, 0.1, 0, out=out) is out
        assert torch.equal(out, expected)
    aliased = w.clone()
    operator(aliased, 0.1, 0.1, 0, out=aliased.detach())
    assert torch.equal(aliased, expected)


@pytest.mark.parametrize("dim", [(-2,), (-1,)])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("group", "exclusive"), [(0.2, 0.0), (0.0, 0.01), (0.2, 1e-6), (0.2, 0.5)]
)
def test_a_bound_weight_is_shrunk_step_by_step(dim, exact, group, exclusive):
    w = torch.nn.Parameter(draw(6, 5))
    bound = BoundWeight(w, dim)
    for dtype in (torch.float32, torch.float64, torch.float32):
        w.data = draw(6, 5, dtype=dtype)  # as module.to(dtype) does
        for _ in range(3):
            expected = prox_cges(w.detach(), group, exclusive, dim, exact)
            version = w._version
            assert bound.shrink(group, exclusive, exact)
            assert torch.equal(w, expected)
            assert w._version > version


def test_a_bound_weight_leaves_the_rest_to_torch():
    for w in (draw(6, 5).bfloat16(), draw(6, 5).T, draw(6, 5).to("meta"), draw(0, 5)):
        before = w.clone()
        assert not BoundWeight(torch.nn.Parameter(w), (-2,)).shrink(0.1, 0.1, True)
        assert w.is_meta or torch.equal(w, before)
    bound = BoundWeight(torch.nn.Parameter(draw(6, 5).double()), (-2,))
    assert not bound.shrink(1e-200, 0.1, True)
    with without_compilation():
        assert not bound.shrink(0.1, 0.1, True)
    assert bound.shrink(0.1, 0.1, True)


def compile_afresh(dtype=torch.float32):
    return _compiled._compile.__wrapped__(_loops.shrink_rows, dtype)


@pytest.mark.parametrize("reason", ["nowhere to write", "disk full"])
def test_compiles_where_it_cannot_cache(reason, monkeypatch):
    from numba.core import caching

    if reason == "nowhere to write":
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    else:
        full = mock.Mock(side_effect=OSError(28, "No space left on device"))
        monkeypatch.setattr(caching.IndexDataCacheFile, "load", lambda *_: None)
        monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    w = draw(6, 5)
    expected = prox_cges(w, 0.1, 0.1, 1)
    compile_afresh()(w.numpy(), 0.1, 10.0, 15.0, 6)
    assert torch.equal(w, expected)


def fit_weights(X, y, penalty="cges", groups="feature"):
    model = CGESClassifier(
        alpha=0.02, penalty=penalty, groups=groups, max_epochs=3, random_state=0
    ).fit(X, y)
    return [p.detach().numpy() for p in model.module_.parameters()], model


def assert_identical(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("penalty", ["cges", "group", "exclusive"])
@pytest.mark.parametrize("groups", ["feature", "filter"])
def test_fits_repeat_to_the_last_bit(blobs, penalty, groups, compiled):
    weights, model = fit_weights(*blobs, penalty, groups)
    assert compiled.called
    assert_identical(fit_weights(*blobs, penalty, groups)[0], weights)
    restored = pickle.loads(pickle.dumps(model))
    assert_identical([p.detach() for p in restored.module_.parameters()], weights)
    with without_compilation():
        by_torch, _ = fit_weights(*blobs, penalty, groups)
    for one, other in zip(weights, by_torch, strict=True):
        assert_allclose(one, other, rtol=0.0, atol=1e-5)


@pytest.mark.slow
def test_fits_repeat_in_other_processes(blobs):
    weights, model = fit_weights(*blobs)
    fit = joblib.delayed(CGESClassifier.fit)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        fits = joblib.Parallel(n_jobs=2)([fit(clone(model), *blobs)] * 2)
    for other in fits:
        assert_identical([p.detach() for p in other.module_.parameters()], weights)


def test_threads_do_not_disturb_each_other():
    layers = [draw(50, 60, seed=seed) for seed in range(40)]
    expected = [prox_cges(w, 0.1, 0.1, 0) for w in layers]
    prox = joblib.delayed(prox_cges)
    shrunk = joblib.Parallel(n_jobs=2, backend="threading")(
        prox(w, 0.1, 0.1, 0) for w in layers
    )
    assert_identical(shrunk, expected)


@every_operator
@pytest.mark.parametrize("dim", [0, 1])
def test_infinity_comes_out_of_both_paths_alike(operator, dim, monkeypatch):
    w = draw(5, 5)
    w[2, 2], w[0, 4] = float("inf"), -float("inf")
    compiled = operator(w, 0.1, 0.5, dim)
    monkeypatch.setattr(_compiled, "ENABLED", False)
    torch.testing.assert_close(compiled, operator(w, 0.1, 0.5, dim), equal_nan=True)
