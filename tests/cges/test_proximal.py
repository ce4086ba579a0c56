"""The proximal operators against independent solutions of their problems."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from sklearn_structreg.cges import (
    prox_cges,
    prox_cges_joint,
    prox_exclusive_lasso,
    prox_group_lasso,
)
from sklearn_structreg.cges.proximal import prox_l1, prox_l2
from sklearn_structreg.cges.schedule import mu_schedule

pytestmark = pytest.mark.usefixtures("path")

# From strengths that drop next to nothing to those that leave one member: the exact
# exclusive operator takes a known number of passes for the first, Newton for the last.
EXCLUSIVE_STRENGTHS = [1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 30.0, 1e4]


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def minimise_by_lbfgs(v, d=1.0, l1=0.0, l2=0.0, group=0.0, exclusive=0.0):
    """Minimise the penalties plus d (w - v)^2 / 2 with w = p - q and p, q >= 0."""

    def value_and_gradient(pq):
        p, q = np.split(pq, 2)
        w, norm_1 = p - q, pq.sum()
        norm_2 = np.linalg.norm(w)
        value = (
            0.5 * (d * (w - v) ** 2).sum()
            + l1 * norm_1
            + l2 / 2 * norm_2**2
            + group * norm_2
            + exclusive / 2 * norm_1**2
        )
        smooth = d * (w - v) + l2 * w + group * w / max(norm_2, 1e-300)
        pulls = l1 + exclusive * norm_1
        return value, np.concatenate([pulls + smooth, pulls - smooth])

    start = np.concatenate([np.maximum(v, 0.0), np.maximum(-v, 0.0)]) + 0.1
    solution = minimize(
        value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * start.size,
        options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 20_000, "maxfun": 20_000},
    )
    p, q = np.split(solution.x, 2)
    return p - q


def stationarity_residual(v, w, group=0.0, exclusive=0.0, d=1.0):
    """Largest violation of 0 in D(w - v) + a * d||w||_2 + b * ||w||_1 * d||w||_1."""
    norm_1, norm_2 = np.abs(w).sum(), np.linalg.norm(w)
    if norm_2 == 0.0:
        return max(np.linalg.norm(d * v) - group, 0.0)
    slope = d * (w - v) + group * w / norm_2
    pull = exclusive * norm_1
    on_support = np.abs(slope + pull * np.sign(w))[w != 0.0]
    off_support = np.maximum(np.abs(slope) - pull, 0.0)[w == 0.0]
    return np.concatenate([on_support, off_support]).max()


def exclusive_by_sorting(v, strength):
    """Apply the exact operator through tau = max_k s * S_k / (1 + s * k)."""
    tau, head = 0.0, 0.0
    for k, magnitude in enumerate(sorted(abs(x) for x in v)[::-1], start=1):
        head += magnitude
        tau = max(tau, strength * head / (1.0 + strength * k))
    return np.array([np.sign(x) * max(abs(x) - tau, 0.0) for x in v])


@pytest.mark.parametrize(
    ("operator", "penalties"),
    [
        (lambda w: prox_l1(w, 0.4), {"l1": 0.4}),
        (lambda w: prox_l2(w, 0.7), {"l2": 0.7}),
        (lambda w: prox_group_lasso(w, 0.9, 0), {"group": 0.9}),
        (lambda w: prox_exclusive_lasso(w, 1e-3, 0), {"exclusive": 1e-3}),
        (lambda w: prox_exclusive_lasso(w, 0.3, 0), {"exclusive": 0.3}),
        (lambda w: prox_exclusive_lasso(w, 5.0, 0), {"exclusive": 5.0}),
        (
            lambda w: prox_cges_joint(w, 0.5, 0.2, 0),
            {"group": 0.5, "exclusive": 0.2},
        ),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_minimises_its_objective(operator, penalties, seed):
    w = draw(12, 4, seed=seed)
    expected = [minimise_by_lbfgs(v, **penalties) for v in w.T.numpy()]
    # The quadratic resolves the minimiser to the root of the objective's rounding.
    assert_allclose(operator(w).T, expected, rtol=0.0, atol=2e-7)


@pytest.mark.parametrize("strength", EXCLUSIVE_STRENGTHS)
@pytest.mark.parametrize("n_members", [1, 2, 7, 100, 1000])
def test_exclusive_lasso_agrees_with_sorting(strength, n_members):
    w = draw(n_members, 3)
    w[w.abs() < 0.05] = 0.0
    expected = np.stack([exclusive_by_sorting(v, strength) for v in w.T.numpy()], 1)
    assert_allclose(
        prox_exclusive_lasso(w, strength, 0), expected, rtol=0.0, atol=1e-14
    )
    single = prox_exclusive_lasso(w.float(), strength, 0)
    assert_allclose(single, expected, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("strength", EXCLUSIVE_STRENGTHS)
def test_exclusive_lasso_is_stationary(strength):
    w = draw(100, 5, seed=1)
    shrunk = prox_exclusive_lasso(w, strength, 0)
    for v, x in zip(w.T.numpy(), shrunk.T.numpy(), strict=True):
        assert x.any()
        residual = stationarity_residual(v, x, exclusive=strength)
        assert residual <= 1e-11 * np.abs(v).max()


@pytest.mark.parametrize("threshold", [1e-14, 1e-6, 0.1, 3.0, 9.9, 10.1, 30.0])
def test_group_lasso_is_stationary(threshold):
    w = draw(100, 40, seed=2)
    shrunk = prox_group_lasso(w, threshold, 0)
    for v, x in zip(w.T.numpy(), shrunk.T.numpy(), strict=True):
        assert x.any() == (np.linalg.norm(v) > threshold)
        residual = stationarity_residual(v, x, group=threshold)
        assert residual <= 1e-14 * np.abs(v).max()


@pytest.mark.parametrize("group", [0.0, 1e-6, 0.5, 9.0, 10.0, 30.0])
@pytest.mark.parametrize("exclusive", [0.0, 1e-6, 1e-2, 1.0, 100.0])
def test_joint_operator_is_stationary(group, exclusive):
    w = draw(100, 10, seed=3)
    joint = prox_cges_joint(w, group, exclusive, 0)
    for v, x in zip(w.T.numpy(), joint.T.numpy(), strict=True):
        residual = stationarity_residual(v, x, group, exclusive)
        assert residual <= 1e-13 * (1.0 + exclusive) * np.abs(v).max()


def test_two_operators_in_a_row_are_nearly_the_joint_one():
    w = draw(100, 64, seed=4) / 8.0
    # alpha = 1e-4, mu = 0.2 and a learning rate of 0.1, as in training.
    group, exclusive = 8e-6, 2e-6
    in_a_row = prox_cges(w, group, exclusive, 0)
    error = (in_a_row - prox_cges_joint(w, group, exclusive, 0)).abs()
    # The group term of the joint operator sees weights that the exclusive term has
    # already turned, by this much to first order in both strengths. The next order is
    # smaller by a factor of about 100 * exclusive.
    norm_1, norm_2 = w.abs().sum(0), w.norm(dim=0)
    turned = (w.sign() - w * norm_1 / norm_2**2).abs() * norm_1 / norm_2
    assert (error <= group * exclusive * (1.001 * turned + 1e-3)).all()
    assert 0.0 < error.max() < 1e-9
    # At large strengths they are plainly not the same operator.
    in_a_row = prox_cges(w, 0.5, 0.05, 0)
    assert (in_a_row - prox_cges_joint(w, 0.5, 0.05, 0)).abs().max() > 1e-3


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("exclusive", [1e-6, 1e-3, 0.5])
@pytest.mark.parametrize("group", [1e-6, 0.5, 9.0, 10.5])
def test_cges_is_group_then_exclusive(group, exclusive, exact):
    w = draw(100, 20, seed=5)
    in_a_row = prox_exclusive_lasso(
        prox_group_lasso(w, group, 0), exclusive, 0, exact=exact
    )
    together = prox_cges(w, group, exclusive, 0, exact=exact)
    assert_allclose(together, in_a_row, rtol=0.0, atol=1e-14)


@pytest.mark.parametrize("strength", [1e-6, 1e-3, 0.02])
def test_paper_formula(strength):
    w = draw(30, 5, seed=6)
    expected = np.zeros((30, 5))
    for g, v in enumerate(w.T.tolist()):
        norm = sum(abs(x) for x in v)
        for i, x in enumerate(v):
            expected[i, g] = max(1.0 - strength * norm / abs(x), 0.0) * x
    assert_allclose(
        prox_exclusive_lasso(w, strength, 0, exact=False),
        expected,
        rtol=0.0,
        atol=1e-15,
    )


def test_paper_formula_is_wrong_for_strong_exclusivity():
    w = draw(100, 200, seed=7)
    exact = prox_exclusive_lasso(w, 0.01, 0)
    paper = prox_exclusive_lasso(w, 0.01, 0, exact=False)
    error = (paper - exact).norm() / exact.norm()
    assert 0.3 < error < 0.5
    assert not prox_exclusive_lasso(w, 1.0, 0, exact=False).any()
    assert prox_exclusive_lasso(w, 1.0, 0).any(dim=0).all()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("per_group", [False, True])
def test_large_layers_are_treated_like_their_groups(exact, per_group):
    w = draw(700, 900, seed=8)
    group, exclusive = torch.tensor(5.0), torch.tensor(1e-3)
    if per_group:
        group = torch.linspace(0.0, 30.0, 900)[None]
        exclusive = torch.linspace(0.0, 0.1, 900)[None]
    whole = prox_cges(w, group, exclusive, 0, exact)
    group, exclusive = group.expand(1, 900), exclusive.expand(1, 900)
    for g in [0, 1, 299, 300, 301, 599, 600, 898, 899]:
        alone = prox_cges(w[:, g], group[:, g], exclusive[:, g], 0, exact)
        assert_allclose(whole[:, g], alone, rtol=0.0, atol=1e-13)
    in_place = w.clone()
    prox_cges(in_place, group, exclusive, 0, exact, out=in_place)
    assert torch.equal(in_place, whole)
    # Groups along the other axis, and a single group, that cannot be cut.
    rows = prox_exclusive_lasso(w, 1e-3, -1, exact)
    assert_allclose(rows, prox_exclusive_lasso(w.T, 1e-3, 0, exact).T, atol=1e-13)
    single = prox_exclusive_lasso(w, 1e-6, (0, 1), exact)
    flat = prox_exclusive_lasso(w.flatten(), 1e-6, 0, exact)
    assert_allclose(single.flatten(), flat, rtol=0.0, atol=1e-13)


def test_mu_schedule():
    assert_allclose(mu_schedule(4, 0.2), [0.2, 0.4, 0.6, 0.8], rtol=1e-15)
    assert mu_schedule(5, 0.5) == (0.5,) * 5
    assert mu_schedule(1, 0.2) == (0.8,)
    # The ends are what the thesis says they are, not one rounding beside it.
    for n_layers in range(2, 60):
        assert mu_schedule(n_layers, 0.0)[:: n_layers - 1] == (0.0, 1.0)


@pytest.mark.parametrize("arguments", [(0, 0.2), (3, -0.1), (3, 1.1), (3, np.nan)])
def test_mu_schedule_refuses(arguments):
    with pytest.raises(ValueError, match="must"):
        mu_schedule(*arguments)


def some_metric(*shape, seed=0):
    """Draw step sizes that differ by four orders of magnitude, as Adam's do."""
    return 10.0 ** (4.0 * draw(*shape, seed=seed).sigmoid() - 2.0)


IN_A_METRIC = [
    (prox_l1, (0.4,), {"l1": 0.4}),
    (prox_l2, (0.7,), {"l2": 0.7}),
    (prox_group_lasso, (0.9, 0), {"group": 0.9}),
    (prox_exclusive_lasso, (0.3, 0), {"exclusive": 0.3}),
    (prox_exclusive_lasso, (5.0, 0), {"exclusive": 5.0}),
    (prox_cges_joint, (0.5, 0.2, 0), {"group": 0.5, "exclusive": 0.2}),
    (prox_cges, (0.5, 0.0, 0), {"group": 0.5}),
    (prox_cges, (0.0, 0.2, 0), {"exclusive": 0.2}),
]


@pytest.mark.parametrize(("operator", "arguments", "penalties"), IN_A_METRIC)
@pytest.mark.parametrize("seed", range(3))
def test_minimises_its_objective_in_a_metric(operator, arguments, penalties, seed):
    w, metric = draw(12, 4, seed=seed), some_metric(12, 4, seed=seed + 10)
    pairs = zip(w.T.numpy(), metric.T.numpy(), strict=True)
    expected = [minimise_by_lbfgs(v, d, **penalties) for v, d in pairs]
    shrunk = operator(w, *arguments, metric=metric)
    # The smallest factors resolve the minimiser ten times worse than a metric of ones.
    assert_allclose(shrunk.T, expected, rtol=0.0, atol=2e-6)


@pytest.mark.parametrize("group", [0.0, 1e-6, 0.5, 9.0, 100.0])
@pytest.mark.parametrize("exclusive", [0.0, 1e-6, 1e-2, 1.0, 100.0])
def test_stationary_in_a_metric(group, exclusive):
    w, metric = draw(100, 10, seed=3), some_metric(100, 10, seed=5)
    joint = prox_cges_joint(w, group, exclusive, 0, metric=metric)
    results = [(joint, group, exclusive)]
    alone = prox_group_lasso(w, group, 0, metric=metric)
    results.append((alone, group, 0.0))
    alone = prox_exclusive_lasso(w, exclusive, 0, metric=metric)
    results.append((alone, 0.0, exclusive))
    for shrunk, a, b in results:
        for v, x, d in zip(
            w.T.numpy(), shrunk.T.numpy(), metric.T.numpy(), strict=True
        ):
            residual = stationarity_residual(v, x, a, b, d)
            assert residual <= 1e-12 * (1.0 + b) * np.abs(d * v).max()


def test_two_operators_in_a_row_are_nearly_the_joint_one_in_a_metric():
    w, metric = draw(100, 64, seed=4) / 8.0, 1e3 * some_metric(100, 64, seed=6)
    joint = prox_cges_joint(w, 1e-2, 1e-3, 0, metric=metric)
    two = prox_cges(w, 1e-2, 1e-3, 0, metric=metric)
    assert ((joint == 0) == (two == 0)).all()
    assert_allclose(two, joint, rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("strength", [0.3, torch.tensor(0.3), torch.tensor([0.1, 3.0])])
def test_a_metric_of_ones_times_c_divides_strengths_by_c(strength):
    w = draw(2, 9, 4, seed=7)
    for operator in (prox_group_lasso, prox_exclusive_lasso):
        scaled = operator(w, strength / 8.0, -2)
        in_metric = operator(w, strength, -2, metric=torch.full_like(w, 8.0))
        assert_allclose(in_metric, scaled, rtol=0.0, atol=1e-13)
    for operator in (prox_l1, prox_l2):
        in_metric = operator(w, strength, metric=torch.full_like(w, 8.0))
        assert_allclose(in_metric, operator(w, strength / 8.0), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize(
    "metric", [torch.ones(2), torch.zeros(2, 3), torch.ones(2, 3, dtype=int)]
)
def test_refuses_what_is_no_metric(metric):
    for operator in (prox_group_lasso, prox_exclusive_lasso):
        with pytest.raises(ValueError, match="metric must"):
            operator(torch.ones(2, 3), 0.1, 0, metric=metric)
    for operator in (prox_l1, prox_l2):
        with pytest.raises(ValueError, match="metric must"):
            operator(torch.ones(2, 3), 0.1, metric=metric)
