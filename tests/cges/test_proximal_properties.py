"""What must hold for the proximal operators whatever the weights and strengths are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from numpy.testing import assert_allclose

from sklearn_structreg.cges import (
    prox_cges,
    prox_cges_joint,
    prox_exclusive_lasso,
    prox_group_lasso,
)
from sklearn_structreg.cges.proximal import prox_l1, prox_l2

pytestmark = pytest.mark.usefixtures("path")

# Each as a function of weights, one strength and the group's dimensions.
OPERATORS = {
    "l1": lambda w, s, dim: prox_l1(w, s),
    "l2": lambda w, s, dim: prox_l2(w, s),
    "group": prox_group_lasso,
    "exclusive": prox_exclusive_lasso,
    "paper": lambda w, s, dim: prox_exclusive_lasso(w, s, dim, exact=False),
    "cges": lambda w, s, dim: prox_cges(w, s, 0.3 * s, dim),
    "cges-paper": lambda w, s, dim: prox_cges(w, s, 0.3 * s, dim, exact=False),
    "joint": lambda w, s, dim: prox_cges_joint(w, s, 0.3 * s, dim),
}
# The paper's explicit step is no proximal operator, and neither are two in a row.
PROXIMAL = ["l1", "l2", "group", "exclusive", "joint"]
GROUPED = ["group", "exclusive", "paper", "cges", "cges-paper", "joint"]

every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
few_examples = settings(max_examples=40, deadline=None)

strengths = st.sampled_from([1e-6, 1e-3, 0.05, 0.5, 2.0, 50.0])
moderate = st.one_of(st.just(0.0), st.floats(-10.0, 10.0, allow_subnormal=False))
weights = stnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 4)),
    elements=moderate,
).map(torch.from_numpy)


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def assert_same(actual, expected, scale=1.0):
    assert_allclose(actual, expected, rtol=0.0, atol=1e-13 * (1.0 + float(scale)))


@pytest.mark.parametrize("name", GROUPED)
@given(w=weights, strength=strengths)
@few_examples
def test_groups_are_separate(name, w, strength):
    together = OPERATORS[name](w, strength, 0)
    alone = [OPERATORS[name](v, strength, 0) for v in w.T]
    assert_same(together, torch.stack(alone, 1), w.abs().max())


@every_operator
@given(w=weights, strength=strengths)
@few_examples
def test_signs_and_order_of_magnitudes_are_kept(operator, w, strength):
    shrunk = operator(w, strength, 0)
    assert (shrunk * w >= 0.0).all()
    assert (shrunk.abs() <= w.abs()).all()
    order = w.abs().argsort(0)
    assert (shrunk.abs().gather(0, order).diff(dim=0) >= 0.0).all()
    # Zeros are positive, so that a comparison of bits finds them equal.
    if operator is not OPERATORS["l2"]:
        assert not torch.signbit(shrunk[shrunk == 0.0]).any()


@pytest.mark.parametrize("name", PROXIMAL)
@given(w=weights, strength=strengths, data=st.data())
@few_examples
def test_firmly_non_expansive(name, w, strength, data):
    elements = stnp.arrays(np.float64, tuple(w.shape), elements=moderate)
    other = torch.from_numpy(data.draw(elements))
    change = OPERATORS[name](w, strength, 0) - OPERATORS[name](other, strength, 0)
    slack = (change * (w - other)).sum(0) - change.square().sum(0)
    assert (slack >= -1e-13 * (1.0 + (w - other).square().sum(0))).all()


@every_operator
@given(w=weights, strength=strengths, seed=st.integers(0, 1000))
@few_examples
def test_permuting_a_group_permutes_the_result(operator, w, strength, seed):
    order = torch.randperm(len(w), generator=torch.Generator().manual_seed(seed))
    permuted = operator(w[order], strength, 0)
    assert_same(permuted, operator(w, strength, 0)[order], w.abs().max())


@given(value=st.floats(-100.0, 100.0), strength=st.floats(0.0, 1e3))
@few_examples
def test_single_members_are_divided(value, strength):
    w = torch.tensor([[value]], dtype=torch.float64)
    expected = value / (1.0 + strength)
    assert_same(prox_exclusive_lasso(w, strength, 0), expected, abs(value))
    assert_same(prox_l2(w, strength), expected, abs(value))


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0, 1e5])
def test_exact_exclusive_keeps_the_largest(strength):
    w = draw(50, 30)
    survivors = prox_exclusive_lasso(w, strength, 0) != 0.0
    assert survivors.gather(0, w.abs().argmax(0, keepdim=True)).all()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strengths_whose_square_overflows(exact, dtype):
    shrunk = prox_exclusive_lasso(draw(7, 3, dtype=dtype), 1e200, 0, exact)
    assert (shrunk.abs() <= 1e-6).all()


@every_operator
def test_strength_zero_changes_nothing(operator):
    w = draw(6, 5) * torch.tensor([1.0, 1e-300, 0.0, 1e150, 1e-320]).double()
    for zero in [0, 0.0, torch.tensor(0.0), torch.zeros(1, 5)]:
        untouched = operator(w, zero, 0)
        assert torch.equal(untouched, w)
        assert untouched.data_ptr() != w.data_ptr()
    # Strength 0 for some groups, or some models, leaves those alone.
    w = draw(6, 5)
    some = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.5]])
    shrunk = operator(w, some, 0)
    unchanged = (shrunk == w).all(0)
    assert unchanged.tolist() == [True, False, True, False, False]


@every_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_stay_zero(operator, dtype):
    zeros = torch.zeros(4, 3, dtype=dtype)
    for strength in [1e-30, 0.1, 1e30, torch.tensor([[0.0, 1e-30, 1e30]])]:
        assert torch.equal(operator(zeros, strength, 0), zeros)


@pytest.mark.parametrize("name", [*OPERATORS])
@pytest.mark.parametrize("exponent", [-100, -40, 40, 100])
@pytest.mark.parametrize("tensor", [False, True])
def test_extreme_magnitudes(name, exponent, tensor):
    """Scaling the weights and what shares their unit scales the result."""
    w = draw(9, 4).float()
    unit = 2.0**exponent

    def apply(weights, scale):
        level = torch.tensor if tensor else float
        if name in ("group", "l1"):
            return OPERATORS[name](weights, level(0.9 * scale), 0)
        if name.startswith("cges"):
            exact = name == "cges"
            return prox_cges(weights, level(0.9 * scale), level(0.1), 0, exact)
        if name == "joint":
            return prox_cges_joint(weights, level(0.9 * scale), level(0.1), 0)
        return OPERATORS[name](weights, level(0.1), 0)

    expected = apply(w, 1.0) * unit
    assert_allclose(apply(w * unit, unit), expected, rtol=2e-6, atol=1e-7 * unit)


@every_operator
@pytest.mark.parametrize("strength", [1e-60, 1e-40, 1e-12, 1e-3])
@pytest.mark.parametrize("magnitude", [1e-44, 1e-38, 1e-20, 1e20, 1e30])
def test_single_precision_follows_double(operator, strength, magnitude):
    w = draw(9, 4).float() * magnitude
    w[:, 1] = 0.0
    expected = operator(w.double(), strength, 0)
    shrunk = operator(w, strength, 0)
    assert shrunk.dtype == torch.float32
    # 3e-45 is two steps of the smallest numbers that single precision has.
    assert_allclose(shrunk, expected, rtol=0.0, atol=1e-6 * magnitude + 3e-45)


@every_operator
def test_stacked_models_are_treated_like_single_ones(operator):
    w = draw(3, 8, 5)
    levels = torch.tensor([0.0, 0.05, 1.0], dtype=w.dtype)
    one_each = torch.stack([operator(w[b], float(s), 0) for b, s in enumerate(levels)])
    assert_same(operator(w, levels, -2), one_each)
    assert_same(operator(w, levels[:, None, None], 1), one_each)
    same_for_all = torch.stack([operator(v, 0.05, 0) for v in w])
    assert_same(operator(w, 0.05, -2), same_for_all)
    assert_same(operator(w, levels[1], -2), same_for_all)
    # Strengths this small need no comparison of values, which vmap does not allow.
    mapped = torch.func.vmap(lambda v: operator(v, 1e-5, 0))(w)
    assert_same(mapped, operator(w, 1e-5, -2))


@pytest.mark.parametrize("name", GROUPED)
def test_filters_and_taps_of_a_convolution(name):
    operator, w = OPERATORS[name], draw(6, 3, 2, 4)
    by_filter = operator(w, 0.2, (1, 2, 3))
    assert_same(by_filter, operator(w.reshape(6, -1), 0.2, 1).reshape(w.shape))
    assert_same(by_filter, operator(w, 0.2, (-1, 2, -3)))
    by_tap = operator(w, 0.2, (0,))
    assert_same(by_tap, operator(w.reshape(6, -1), 0.2, 0).reshape(w.shape))
    assert_same(by_tap, operator(w, 0.2, 0))


@every_operator
def test_memory(operator):
    w = draw(10, 6)
    before = w.clone()
    expected = operator(w, 0.1, 0)
    assert torch.equal(w, before)
    assert_same(operator(w.T.contiguous().T, 0.1, 0), expected)
    assert_same(operator(w[::2, 1:4], 0.1, 0), operator(w[::2, 1:4].clone(), 0.1, 0))
    strength = torch.tensor(0.1, dtype=w.dtype)
    assert_same(operator(w, strength, 0), expected)
    assert strength == 0.1
    parameter = torch.nn.Parameter(w)
    with torch.no_grad():
        assert torch.equal(operator(parameter, 0.1, 0), expected)


@pytest.mark.parametrize(
    "operator",
    [
        lambda w, s, out: prox_l1(w, s, out=out),
        lambda w, s, out: prox_l2(w, s, out=out),
        lambda w, s, out: prox_group_lasso(w, s, 0, out=out),
        lambda w, s, out: prox_exclusive_lasso(w, s, 0, out=out),
        lambda w, s, out: prox_cges(w, s, s, 0, out=out),
        lambda w, s, out: prox_cges(w, s, 0.0, 0, out=out),
        lambda w, s, out: prox_cges(w, 0.0, s, 0, out=out),
    ],
)
@pytest.mark.parametrize("strength", [0.0, 1e-20, 0.1, torch.tensor(0.1)])
def test_out(operator, strength):
    parameter = torch.nn.Parameter(draw(10, 6))
    with torch.no_grad():
        expected = operator(parameter, strength, None)
        elsewhere = torch.empty_like(parameter)
        assert operator(parameter, strength, elsewhere) is elsewhere
        assert operator(parameter, strength, parameter) is parameter
    assert torch.equal(elsewhere, expected)
    assert torch.equal(parameter, expected)


@every_operator
def test_refuses_strengths_that_do_not_fit(operator):
    for misfit in [torch.ones(3), torch.ones(1, 2), torch.ones(1, 1, 1)]:
        with pytest.raises(ValueError, match="does not fit weights of shape"):
            operator(torch.ones(2, 3), misfit, 0)
    with pytest.raises(ValueError, match="empty"):
        operator(torch.ones(2, 3), torch.ones(0), 0)


@pytest.mark.parametrize("name", GROUPED)
def test_strengths_belong_to_whole_groups(name):
    with pytest.raises(ValueError, match="one value per group"):
        OPERATORS[name](torch.ones(2, 3), torch.ones(2, 1), 0)
    with pytest.raises(ValueError, match="at least one dimension"):
        OPERATORS[name](torch.ones(2, 3), 0.1, ())
