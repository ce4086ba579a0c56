"""Looking into a network: hooks, names, replacement, also of compiled modules."""

import pytest
import torch
from torch import nn

from sklearn_structreg.core import insert_layer, make_convnet, make_mlp
from sklearn_structreg.core.inspection import (
    find_layer,
    layer_names,
    listening,
    replace_layer,
    run_once,
    run_until,
    weighted_layers,
)


class Shared(nn.Module):
    """Runs one layer twice, another by keyword, and a third not at all."""

    def __init__(self):
        super().__init__()
        self.last, self.twice = nn.Linear(4, 2), nn.Linear(4, 4)
        self.alias, self.idle = self.twice, nn.Linear(4, 4)

    def forward(self, x):
        return self.last(input=self.alias(self.twice(x)))


def test_listeners_hear_and_replace_and_leave_no_trace():
    net, heard = Shared().train(), []

    def double(layer, args, output):
        heard.append((layer, output is None))
        return 2 * args[0] if output is None else 2 * output

    x = torch.randn(3, 4)
    with listening([(net.last, "input", double), (net.last, "output", double)]):
        doubled = run_once(net, x)
    assert heard == [(net.last, True), (net.last, False)]
    hidden = net.twice(net.twice(x))
    torch.testing.assert_close(doubled, 2 * net.last(2 * hidden))
    assert net.training
    with pytest.raises(ZeroDivisionError), listening([(net.last, "input", double)]):
        _ = 1 / 0
    assert not any(
        part._forward_hooks or part._forward_pre_hooks for part in net.modules()
    )


def test_weighted_layers_are_those_that_run_in_their_order():
    assert list(weighted_layers(Shared(), torch.zeros(1, 4))) == ["twice", "last"]
    net = make_convnet((1, 8, 8), 3)
    names = list(weighted_layers(net, torch.zeros(1, 1, 8, 8)))
    assert names == ["0", "3", "7", "9"]
    assert list(weighted_layers(nn.Linear(2, 1), (torch.zeros(1, 2),))) == [""]


def test_a_layer_is_replaced_wherever_it_stands():
    net = Shared()
    assert replace_layer(net, "twice", nn.Identity()) is net
    assert isinstance(net.alias, nn.Identity)
    whole = nn.ReLU()
    assert replace_layer(nn.Linear(2, 2), "", whole) is whole
    message = r"no layer named '9'; its layers are '0', '1', '2'\."
    with pytest.raises(ValueError, match=message):
        find_layer(make_mlp(2, 2), "9")


def test_inserted_layers_are_not_among_the_names():
    net = make_mlp(2, 2)
    insert_layer(net, "0", nn.Sequential(nn.Dropout()), before=True)
    assert layer_names(net) == ["0", "1", "2"]


def test_a_run_ends_where_all_has_been_seen():
    net, seen = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3)), []
    run_until(net, torch.zeros(1, 2), {net[0]: seen.append})  # the second would fail
    assert [tuple(output.shape) for output in seen] == [(1, 2)]


def test_compiled_modules_call_hooks():
    net = torch.compile(make_mlp(4, 2), backend="eager")
    net(torch.zeros(2, 4))
    names = list(weighted_layers(net, torch.zeros(2, 4)))
    assert names == ["_orig_mod.0", "_orig_mod.2"]
