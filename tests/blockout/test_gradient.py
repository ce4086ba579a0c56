"""The gradients of memberships, beside the exact one: all draws are enumerated."""

import itertools

import pytest
import torch
from torch import nn

from sklearn_structreg.blockout import BlockoutLinear, NodeSet
from sklearn_structreg.blockout.masks import masked_weight, with_gradient

K, INPUTS, CLASSES = 2, 3, 3
BITS = K * (INPUTS + CLASSES)
DRAWS = torch.tensor([*itertools.product((0.0, 1.0), repeat=BITS)]).double()


def losses(P, W, x, y, rule):
    """The loss of each of the 2^12 draws: memberships C, then softmax regression."""
    C = with_gradient(DRAWS, P.expand(len(DRAWS), -1), rule)
    c_in, c_out = (
        part.unflatten(1, (-1, K)) for part in C.split([K * INPUTS, K * CLASSES], 1)
    )
    logits = x @ masked_weight(W, c_out, c_in, 3.0).mT  # (draw, sample, class)
    targets = y.expand(len(DRAWS), -1)
    loss = nn.functional.cross_entropy(logits.mT, targets, reduction="none")
    return loss.mean(1)


def chances(P):
    return (DRAWS * P + (1 - DRAWS) * (1 - P)).prod(1)


def fitted(seed, n_steps):
    """Data with a signal, and weights at the least expected loss."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(24, INPUTS, generator=generator, dtype=torch.float64)
    signal = torch.randn(INPUTS, CLASSES, generator=generator, dtype=torch.float64)
    noise = torch.randn(24, CLASSES, generator=generator, dtype=torch.float64)
    y = (x @ signal + noise).argmax(1)
    W = torch.zeros(CLASSES, INPUTS, dtype=torch.float64, requires_grad=True)
    P = 0.3 + 0.4 * torch.rand(BITS, generator=generator, dtype=torch.float64)
    weight = chances(P)
    optimizer = torch.optim.LBFGS([W], max_iter=n_steps, tolerance_change=0.0)

    def closure():
        optimizer.zero_grad()
        loss = weight @ losses(P, W, x, y, "paper")
        loss.backward()
        return loss

    optimizer.step(closure)
    return P.requires_grad_(), W, x, y


def mean_gradient(P, W, x, y, rule):
    """The mean over all draws of the gradient that training takes."""
    loss = chances(P).detach() @ losses(P, W, x, y, rule)
    return torch.autograd.grad(loss, (P, W))


@pytest.mark.parametrize("seed", range(2))
def test_straight_through_follows_the_expected_loss_and_the_paper_does_not(seed):
    P, W, x, y = fitted(seed, n_steps=40)
    (exact,) = torch.autograd.grad(
        chances(P) @ losses(P.detach(), W, x, y, "paper").detach(), P
    )
    cosine = {}
    for rule in ("paper", "straight_through"):
        gradient, slope = mean_gradient(P, W, x, y, rule)
        assert slope.abs().max() < 1e-5  # the weights stand still
        cosine[rule] = nn.functional.cosine_similarity(gradient, exact, dim=0)
        if rule == "paper":  # times P, the sum over each node's clusters is zero
            assert gradient.unflatten(0, (-1, K)).sum(1).abs().max() < 1e-4
    assert cosine["straight_through"] > 0.9
    assert cosine["paper"] < 0.3
    assert torch.equal(gradient.sign(), exact.sign())


@pytest.mark.parametrize("mask_per", ["batch", "sample"])
def test_a_layer_takes_the_mean_of_these_gradients(path, mask_per):
    """Its own draws, averaged, are within four standard errors of the enumeration."""
    P, W, x, y = fitted(0, n_steps=5)
    for rule in ("paper", "straight_through"):
        sets = [NodeSet(n, K, gradient=rule).double() for n in (INPUTS, CLASSES)]
        layer = BlockoutLinear(*sets, bias=False, mask_per=mask_per, scale=3.0).double()
        layer.weight.data.copy_(W)
        parts = P.detach().logit().split([K * INPUTS, K * CLASSES])
        for nodes, logits in zip(sets, parts, strict=True):
            nodes.logits.data.copy_(logits.unflatten(0, (-1, K)))
        torch.manual_seed(0)
        found = []
        for _ in range(400):
            layer.zero_grad()
            nn.functional.cross_entropy(layer(x), y).backward()
            found.append(torch.cat([nodes.logits.grad.flatten() for nodes in sets]))
        found = torch.stack(found)
        expected = mean_gradient(P, W, x, y, rule)[0] * (P * (1 - P)).detach()
        error = found.std(0) / len(found) ** 0.5
        assert ((found.mean(0) - expected).abs() < 4 * error).all()
