"""The compiled loops give what autograd gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout import BlockoutLinear, NodeSet, _compiled
from sklearn_structreg.blockout.masks import masked_linear, with_gradient


@pytest.fixture(autouse=True, scope="module")
def _small_weights_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled, "MIN_WEIGHTS", 0)
        yield


def problem(b, d_out, d_in, k, hard, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    def members(d):
        p = torch.rand(d, k, generator=generator, dtype=dtype)
        return (p.round() if hard else p).requires_grad_()

    return (
        normal(b, d_in),
        normal(d_out, d_in),
        normal(d_out),
        members(d_out),
        members(d_in),
    )


def gradients(function, arguments, scale, slope):
    y = function(*arguments, scale)
    return y, torch.autograd.grad(y, arguments, slope)


def assert_agree(arguments, scale, tolerance):
    slope = torch.linspace(-1, 1, len(arguments[0]) * len(arguments[1]))
    slope = slope.reshape(len(arguments[0]), -1).to(arguments[0])
    y, found = gradients(_compiled.fused_linear, arguments, scale, slope)
    expected_y, expected = gradients(masked_linear, arguments, scale, slope)
    torch.testing.assert_close(y, expected_y, rtol=tolerance, atol=tolerance)
    for one, two in zip(found, expected, strict=True):
        atol = tolerance * max(1.0, float(two.abs().max()))
        torch.testing.assert_close(one, two, rtol=tolerance, atol=atol)


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 9),
    d_out=st.integers(1, 40),
    d_in=st.integers(1, 40),
    k=st.one_of(st.integers(1, 8), st.integers(60, 66)),
    hard=st.booleans(),
    scale=st.sampled_from([1.0, 0.3, 4.0]),
    seed=st.integers(0, 99),
)
def test_gradients_agree_in_double_precision(b, d_out, d_in, k, hard, scale, seed):
    arguments = problem(b, d_out, d_in, k, hard, torch.float64, seed)
    assert_agree(arguments, scale, 1e-12)


@pytest.mark.parametrize("hard", [True, False])
def test_gradients_agree_in_single_precision(hard):
    assert_agree(problem(32, 300, 200, 6, hard, torch.float32), 1.5, 1e-4)


@pytest.mark.parametrize("hard", [True, False])
def test_threads_share_the_outputs(hard, monkeypatch):
    monkeypatch.setattr(_compiled, "MIN_PER_THREAD", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert_agree(problem(5, 50, 30, 4, hard, torch.float64), 1.5, 1e-12)


def test_small_weights_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(_compiled, "MIN_WEIGHTS", 31)
    arguments = problem(4, 5, 6, 2, True, torch.float32)
    assert _compiled.fused_linear(*arguments, 1.0) is None
    monkeypatch.setattr(_compiled, "MIN_WEIGHTS", 30)
    assert _compiled.fused_linear(*arguments, 1.0) is not None


def test_gradients_add_up_over_steps_and_uses():
    """The gradient is written over a buffer of the step's own, never over another's."""
    torch.manual_seed(0)
    nodes = NodeSet(20, 3), NodeSet(20, 3)
    layer = BlockoutLinear(*nodes).double()
    x = torch.randn(5, 20, dtype=torch.float64)

    def total(enabled):
        layer.zero_grad()
        torch.manual_seed(1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_compiled, "ENABLED", enabled)
            for _ in range(2):
                layer(layer(x).relu()).square().sum().backward()
        return [p.grad.clone() for p in layer.parameters()]

    for one, two in zip(total(True), total(False), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_frozen_parts_get_no_gradient():
    x, w, b, c_out, c_in = problem(4, 5, 6, 2, True, torch.float64)
    for frozen in ((w,), (c_out, c_in), (x,), (b,), (w, c_out, c_in)):
        for tensor in (x, w, b, c_out, c_in):
            tensor.requires_grad_(not any(tensor is part for part in frozen))
            tensor.grad = None
        _compiled.fused_linear(x, w, b, c_out, c_in, 1.0).sum().backward()
        for tensor in (x, w, b, c_out, c_in):
            assert (tensor.grad is None) == any(tensor is part for part in frozen)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, w, b, o, i: (x, w.T.contiguous().T, b, o, i),
        lambda x, w, b, o, i: (x.half(), w.half(), b.half(), o.half(), i.half()),
        lambda x, w, b, o, i: (x, w, b, o.expand(4, 5, 2), i.expand(4, 6, 2)),
        lambda x, w, b, o, i: (x, w, b, o.to("meta"), i),
    ],
)
def test_what_the_loops_cannot_do_is_left_to_torch(change):
    assert (
        _compiled.fused_linear(*change(*problem(4, 5, 6, 2, True, torch.float32)), 1.0)
        is None
    )


@pytest.mark.parametrize("enabled", [True, False])
def test_stacked_models_train_in_one_pass(enabled, monkeypatch):
    """Under vmap every model has its own weights, probabilities and draws."""
    monkeypatch.setattr(_compiled, "ENABLED", enabled)
    torch.manual_seed(0)
    layers = [BlockoutLinear(NodeSet(6, 2), NodeSet(5, 2)) for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(layers)
    x = torch.ones(4, 6)

    def loss(parameters):
        y = torch.func.functional_call(layers[0], parameters, (x,))
        return y.square().sum(), y

    step = torch.func.grad(loss, has_aux=True)
    found, y = torch.func.vmap(step, randomness="different")(stacked)
    assert y.shape == (3, 4, 5)
    assert all(found[name].shape == stacked[name].shape for name in found)
    assert (found["outputs.logits"] != 0).any(-1).any(-1).all()


def test_the_layer_is_one_graph_for_torch_compile():
    torch.manual_seed(0)
    layer = BlockoutLinear(NodeSet(6, 2), NodeSet(5, 2))
    x = torch.randn(4, 6)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    compiled(x).sum().backward()
    assert layer.outputs.logits.grad.any()
    assert torch.equal(compiled.eval()(x), layer.eval()(x))


def test_rows_of_rows_are_rows():
    x, w, b, c_out, c_in = problem(6, 5, 4, 3, True, torch.float64)
    whole = _compiled.fused_linear(x, w, b, c_out, c_in, 1.0)
    folded = _compiled.fused_linear(x.reshape(2, 3, 4), w, None, c_out, c_in, 1.0)
    torch.testing.assert_close(folded.reshape(6, 5) + b, whole)
    (one,) = torch.autograd.grad(whole.square().sum(), w)
    shifted = folded + b
    (two,) = torch.autograd.grad(shifted.square().sum(), w)
    torch.testing.assert_close(one, two)


def test_an_estimator_trains_alike_on_both_paths(blobs, monkeypatch):
    def losses(enabled):
        monkeypatch.setattr(_compiled, "ENABLED", enabled)
        model = BlockoutClassifier(max_epochs=10, dtype="float64", random_state=0)
        return model.fit(*blobs).history_[:, "train_loss"]

    assert losses(True) == pytest.approx(losses(False), rel=1e-10)


@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_of_gradients(with_bias):
    results = []
    for function in (_compiled.fused_linear, masked_linear):
        x, w, b, c_out, c_in = problem(5, 7, 6, 3, True, torch.float64)
        b = b if with_bias else None
        leaves = [t for t in (x, w, b, c_out, c_in) if t is not None]
        drawn = [with_gradient(c.detach(), c, "paper") for c in (c_out, c_in)]
        y = function(x, w, b, *drawn, 1.3)
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        results.append([*first, *second])
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)


def test_mixed_precision_goes_the_plain_way():
    nodes = NodeSet(30, 2), NodeSet(20, 2)
    layer, x = BlockoutLinear(*nodes), torch.randn(8, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(0)
        y = layer(x)
        y.float().square().sum().backward()
        compiled = layer.weight.grad.clone()
        layer.weight.grad = None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_compiled, "ENABLED", False)
            torch.manual_seed(0)
            layer(x).float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert torch.equal(compiled, layer.weight.grad)
