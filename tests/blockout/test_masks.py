"""Draws and masks against the paper's formulas, written out."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sklearn_structreg.blockout import BlockoutLinear, NodeSet, draws
from sklearn_structreg.blockout.masks import (
    block_mask,
    draw_memberships,
    masked_linear,
    masked_weight,
    with_gradient,
)

SIGNIFICANCE = 1e-3  # of the distribution tests, whose seeds are fixed


def memberships(rng, *shape):
    return torch.from_numpy(rng.integers(0, 2, shape).astype(float))


# ---- draws ---------------------------------------------------------------------


def test_draws_have_the_probabilities_and_are_independent():
    torch.manual_seed(0)
    P = torch.tensor([[0.0, 0.1, 0.5], [0.9, 1.0, 0.3]])
    n = 4000
    drawn = draw_memberships(P, (n,))
    assert drawn.shape == (n, 2, 3)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    counts = drawn.sum(0).int()
    for count, p in zip(counts.flatten().tolist(), P.flatten().tolist(), strict=True):
        assert stats.binomtest(count, n, round(p, 6)).pvalue > SIGNIFICANCE / 6
    free = drawn[:, [0, 0, 1, 1], [1, 2, 0, 2]].numpy()
    correlation = np.corrcoef(free.T)[np.triu_indices(4, 1)]
    bound = stats.norm.isf(SIGNIFICANCE / 12) / np.sqrt(n)
    assert np.abs(correlation).max() < bound


def test_the_papers_gradient_of_a_draw_is_masked_by_it():
    torch.manual_seed(0)
    P = torch.full((50, 4), 0.5, requires_grad=True)
    drawn, slope = draw_memberships(P), torch.randn(50, 4)
    assert 0 < drawn.mean() < 1
    for rule, expected in (("paper", slope * drawn), ("straight_through", slope)):
        membership = with_gradient(drawn, P, rule)
        assert torch.equal(membership, drawn)
        (gradient,) = torch.autograd.grad(membership, P, slope)
        assert torch.equal(gradient, expected)


# ---- masks ---------------------------------------------------------------------


def test_a_mask_counts_shared_clusters():
    rng = np.random.default_rng(0)
    c_out, c_in = memberships(rng, 5, 3), memberships(rng, 4, 3)
    w = torch.from_numpy(rng.normal(size=(5, 4)))
    expected = np.zeros((5, 4))
    for t in range(5):
        for s in range(4):
            for c in range(3):  # Eq. 3
                expected[t, s] += c_in[s, c] * c_out[t, c] * w[t, s] / 3
    np.testing.assert_allclose(masked_weight(w, c_out, c_in), expected, atol=1e-15)
    np.testing.assert_allclose(
        masked_weight(w, c_out, c_in, 1.7), 1.7 * expected, atol=1e-15
    )


def test_masks_take_leading_dimensions():
    rng = np.random.default_rng(0)
    c_out, c_in = memberships(rng, 2, 3, 5, 4), memberships(rng, 2, 3, 6, 4)
    whole = block_mask(c_out, c_in)
    for i, j in np.ndindex(2, 3):
        assert torch.equal(whole[i, j], block_mask(c_out[i, j], c_in[i, j]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_full_mask_is_exactly_one(dtype):
    for k in range(1, 65):
        ones = torch.ones(3, k, dtype=dtype)
        assert torch.equal(block_mask(ones, ones), torch.ones(3, 3, dtype=dtype))


def test_one_cluster_masks_as_dropout_does():
    """Each forward pass keeps nodes as `nn.Dropout` keeps them, unscaled."""
    torch.manual_seed(0)
    n, n_draws = 30, 2000
    nodes = NodeSet(n, 1, init_probability=0.7), NodeSet(n, 1, init_probability=0.7)
    dropout = nn.Dropout(0.3)
    kept, kept_by_dropout, per_node = [], [], np.zeros(n)
    for _ in range(n_draws):
        c_in, c_out = (draw_memberships(each.probabilities) for each in nodes)
        mask = block_mask(c_out, c_in).detach()
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, torch.outer(rows, columns).float())
        kept.append(int(c_in.sum()))
        per_node += c_in[:, 0].detach().numpy()
        kept_by_dropout.append(int((dropout(torch.ones(n)) > 0).sum()))
    bins = np.r_[-0.5, np.arange(17, 26) + 0.5, n + 0.5]
    table = [np.histogram(counts, bins)[0] for counts in (kept, kept_by_dropout)]
    assert stats.chi2_contingency(table).pvalue > SIGNIFICANCE
    spread = ((per_node - 0.7 * n_draws) ** 2 / (0.21 * n_draws)).sum()
    assert SIGNIFICANCE < stats.chi2(n).sf(spread) < 1 - SIGNIFICANCE


def test_inference_is_the_mean_over_draws(path):
    torch.manual_seed(0)
    sets = NodeSet(7, 3), NodeSet(5, 3)
    for nodes in sets:
        nn.init.normal_(nodes.logits)
    blockout = BlockoutLinear(*sets, scale=2.0).double()
    eye = torch.eye(7, dtype=torch.float64)
    with torch.no_grad():
        drawn = torch.stack([blockout(eye).T for _ in range(4000)])
        mean = blockout.eval()(eye).T
        p_in, p_out = (torch.sigmoid(nodes.logits).numpy() for nodes in sets)
    error = drawn.std(0) / np.sqrt(len(drawn))
    z = ((drawn.mean(0) - mean) / error).abs()
    assert z.max() < stats.norm.isf(SIGNIFICANCE / 2 / z.numel())
    by_hand = 2 / 3 * blockout.weight.detach().numpy() * (p_out @ p_in.T)  # Eq. 5
    bias = blockout.bias.detach().numpy()[:, None]
    np.testing.assert_allclose(mean, by_hand + bias, rtol=1e-12)


def test_masks_per_sample_equal_explicit_masks():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(6, 4)))
    w = torch.from_numpy(rng.normal(size=(5, 4)))
    b = torch.from_numpy(rng.normal(size=5))
    c_out, c_in = memberships(rng, 6, 5, 3), memberships(rng, 6, 4, 3)
    y = masked_linear(x, w, b, c_out, c_in, 1.3)
    for i in range(6):
        explicit = 1.3 / 3 * w * (c_out[i] @ c_in[i].T)
        torch.testing.assert_close(y[i], explicit @ x[i] + b, rtol=1e-13, atol=1e-13)


# ---- the whole step ------------------------------------------------------------


@pytest.mark.parametrize(
    ("gradient", "scales"),
    [("paper", (1.0, 1.0)), ("paper", (1.4, 2.1)), ("straight_through", (1.4, 2.1))],
)
def test_the_step_has_the_gradients_of_equations_7_to_9(
    path, monkeypatch, gradient, scales
):
    torch.manual_seed(0)
    k, sizes = 3, (6, 8, 4)
    sets = [NodeSet(size, k, gradient=gradient).double() for size in sizes]
    for nodes in sets:
        nn.init.normal_(nodes.logits)
    first, second = (
        BlockoutLinear(sets[j], sets[j + 1], scale=scales[j]).double() for j in (0, 1)
    )
    drawn = []

    def spy(*arguments):
        drawn.append(draw_memberships(*arguments))
        return drawn[-1]

    monkeypatch.setattr(draws, "draw_memberships", spy)
    x = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    y = torch.randint(0, 4, (10,))
    loss = nn.functional.cross_entropy(second(first(x).relu()), y)
    loss.backward()
    assert len(drawn) == 3  # one for each node set

    C0, C1, C2 = (c.detach().numpy() for c in drawn)
    W1, b1 = first.weight.detach().numpy(), first.bias.detach().numpy()
    W2, b2 = second.weight.detach().numpy(), second.bias.detach().numpy()
    s1, s2 = scales
    M1, M2 = s1 / k * (C1 @ C0.T), s2 / k * (C2 @ C1.T)
    a0 = x.detach().numpy()
    g1 = a0 @ (W1 * M1).T + b1
    a1 = np.maximum(g1, 0)
    g2 = a1 @ (W2 * M2).T + b2
    softmax = np.exp(g2) / np.exp(g2).sum(1, keepdims=True)
    np.testing.assert_allclose(
        loss.item(), -np.log(softmax[range(10), y]).mean(), rtol=1e-13
    )
    delta2 = (softmax - np.eye(4)[y]) / 10
    delta1 = delta2 @ (W2 * M2) * (g1 > 0)  # Eq. 7
    dW1, dW2 = delta1.T @ a0, delta2.T @ a1  # Eq. 8
    dC0 = s1 / k * (W1 * dW1).T @ C1
    dC1 = s1 / k * (W1 * dW1) @ C0 + s2 / k * (W2 * dW2).T @ C2
    dC2 = s2 / k * (W2 * dW2) @ C1

    def close(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)

    close(first.weight.grad, dW1 * M1)
    close(second.weight.grad, dW2 * M2)
    close(first.bias.grad, delta1.sum(0))
    close(second.bias.grad, delta2.sum(0))
    close(x.grad, delta1 @ (W1 * M1))
    for nodes, dC, C in zip(sets, (dC0, dC1, dC2), (C0, C1, C2), strict=True):
        P = 1 / (1 + np.exp(-nodes.logits.detach().numpy()))
        factor = C if gradient == "paper" else 1.0
        close(nodes.logits.grad, dC * factor * P * (1 - P))  # Eq. 9, then the logistic
        assert nodes.logits.grad.abs().max() > 0
