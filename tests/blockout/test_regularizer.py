"""Blockout as a regularizer, in estimators of the core and in a user's skorch net."""

import copy
import pickle
from itertools import pairwise

import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn, optim

from sklearn_structreg.blockout import (
    Blockout,
    BlockoutClassifier,
    BlockoutLinear,
    NodeSet,
    convert,
)
from sklearn_structreg.blockout.conversion import blockout_layers, node_sets
from sklearn_structreg.core import (
    RegularizerCallback,
    StructuredClassifier,
    StructuredRegressor,
    make_mlp,
)
from sklearn_structreg.core.optimizers import with_rates

FAST = {"max_epochs": 3, "random_state": 0}


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_the_first_parameter_is_the_number_of_clusters():
    assert Blockout(4).n_clusters == 4
    assert BlockoutClassifier("auto", 4).n_clusters == 4
    assert repr(Blockout(4, mask_per="sample")) == (
        "Blockout(mask_per='sample', n_clusters=4)"
    )


def test_the_list_gives_what_the_classifier_gives(digits):
    X, y = digits[0][:400], digits[1][:400]
    alone = StructuredClassifier(regularizers=[Blockout(4)], **FAST).fit(X, y)
    own = BlockoutClassifier(n_clusters=4, **FAST).fit(X, y)
    assert torch.equal(weights(alone.module_), weights(own.module_))
    assert list(alone.regularizers_) == list(own.regularizers_) == ["blockout"]


def test_attach_converts_and_simplify_folds():
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    blockout = Blockout(3)
    net = blockout.attach(make_mlp(6, 4, (8,)), x)
    assert [type(part) for part in net] == [BlockoutLinear, nn.ReLU, BlockoutLinear]
    plain = blockout.simplify(copy.deepcopy(net)).eval()
    assert [type(part) for part in plain] == [nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(plain(x), net.eval()(x))
    lone = blockout.attach(nn.Linear(6, 4), x)
    assert isinstance(lone, BlockoutLinear)
    assert type(blockout.simplify(lone)) is nn.Linear


def test_the_logits_get_a_rate_relative_to_the_common_one():
    net = convert(make_mlp(6, 4), torch.zeros(1, 6))
    (group,) = Blockout(logit_rate_factor=3).param_groups(net)
    assert [id(p) for p in group.pop("params")] == [
        id(s.logits) for s in node_sets(net)
    ]
    assert group == {"weight_decay": 0.0, "lr_factor": 3}
    wide = convert(make_mlp(600, 4), torch.zeros(1, 600))
    groups = Blockout().param_groups(wide)
    assert [(g["lr_factor"], len(g["params"])) for g in groups] == [(600, 1), (100, 2)]
    for optimizer, rates in ((optim.SGD, [60, 10]), (optim.Adam, [2, 2])):
        found = [group["lr"] for group in with_rates(groups, 0.1, optimizer)]
        assert found == rates
    fixed = convert(make_mlp(6, 4), torch.zeros(1, 6), learn_probabilities=False)
    assert Blockout().param_groups(fixed) == []


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_layers_of_the_users_own_stay_and_a_second_blockout_is_refused(blobs):
    sets = NodeSet(4, 2), NodeSet(3, 2)
    own = nn.Sequential(BlockoutLinear(*sets))
    model = StructuredClassifier(own, regularizers=[Blockout()], **FAST).fit(*blobs)
    assert blockout_layers(model.module_)[0].inputs.n_clusters == 2
    again = StructuredClassifier(model.module_, regularizers=[Blockout()], **FAST)
    again.fit(*blobs)
    with pytest.raises(ValueError, match=r"^A second Blockout came to a network"):
        model.set_params(regularizers=[Blockout(2), Blockout(3)]).fit(*blobs)
    with pytest.raises(ValueError, match=r"^A second Blockout came to a network"):
        BlockoutClassifier(regularizers=[Blockout()], **FAST).fit(*blobs)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("n_clusters", 3),
        ("assignment", "soft"),
        ("gradient", "paper"),
        ("learn_probabilities", False),
        ("init_probability", 0.5),
        ("mask_per", "sample"),
        ("layers", ["0"]),
    ],
)
def test_resuming_refuses_another_structure(name, new):
    net = Blockout().attach(make_mlp(6, 4), torch.zeros(1, 6))
    with pytest.raises(
        ValueError, match=f"so {name} cannot change from .* set it back"
    ):
        Blockout(**{name: new}).resume(Blockout(), net)
    other = Blockout(logit_rate_factor=1, block_penalty=0.3)
    assert other.resume(Blockout(), net) is net


def test_partial_fit_takes_another_rate_and_keeps_the_clusters(blobs):
    model = BlockoutClassifier(random_state=0).partial_fit(*blobs, classes=[0, 1, 2])
    before = [P.copy() for P in model.cluster_probabilities_]
    model.set_params(logit_rate_factor=0).partial_fit(*blobs)
    for one, two in zip(before, model.cluster_probabilities_, strict=True):
        assert (one == two).all()
    with pytest.raises(ValueError, match="n_clusters cannot change from 6 to 3"):
        model.set_params(n_clusters=3).partial_fit(*blobs)


def test_lbfgs_is_refused_where_its_losses_would_be_of_different_draws(blobs):
    settings = {"optimizer": torch.optim.LBFGS, "batch_size": None, "max_epochs": 2}
    fixed = {"learn_probabilities": False, **settings}
    with pytest.raises(ValueError, match=r"^LBFGS compares several losses within a"):
        BlockoutClassifier(**fixed).fit(*blobs)
    soft = BlockoutClassifier(assignment="soft", learning_rate=0.5, **fixed)
    assert soft.fit(*blobs).score(*blobs) > 0.9


def test_a_skorch_net_of_ones_own(digits):
    X, y = digits[0].astype("float32"), digits[1]
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        make_mlp(64, 10),
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        max_epochs=20,
        callbacks=[("blockout", RegularizerCallback(Blockout(4)))],
        optimizer__weight_decay=1e-4,
        verbose=0,
    ).fit(X, y)
    assert net.score(X, y) > 0.85
    assert len(net.history[:, "probability_histogram"]) == 20
    common, logits = net.optimizer_.param_groups
    assert (common["lr"], common["weight_decay"], len(common["params"])) == (
        0.1,
        1e-4,
        4,
    )
    assert (logits["lr"], logits["weight_decay"], len(logits["params"])) == (
        10.0,
        0.0,
        3,
    )
    assert [nodes.n_clusters for nodes in node_sets(net.module_)] == [4, 4, 4]
    net.fit(X, y)  # skorch keeps an instance and its layers
    assert len(pickle.loads(pickle.dumps(net)).partial_fit(X, y).history) == 40


def test_numbers_are_learned_as_well_as_classes(digits):
    X, y = digits[0][:300], digits[1][:300].astype(float)
    blockout = Blockout(init_probability=0.8)
    model = StructuredRegressor(regularizers=[blockout], random_state=0)
    assert model.fit(X, y).score(X, y) > 0.7


def test_the_price_is_the_mean_number_of_shared_weights():
    torch.manual_seed(0)
    blockout = Blockout(3, block_penalty=0.7)
    net = blockout.attach(make_mlp(6, 4, (8,)), torch.zeros(1, 6))
    n_draws, counts = 4000, 0
    sets = node_sets(net)
    for nodes in sets:
        nn.init.normal_(nodes.logits)
    P = [nodes.probabilities.detach() for nodes in sets]
    for one, two in pairwise(P):
        draws = [torch.bernoulli(p.expand(n_draws, -1, -1)) for p in (one, two)]
        counts += (draws[1] @ draws[0].mT).sum((1, 2))
    n_weights = 6 * 8 + 8 * 4
    penalty = blockout.penalty(net)
    error = float(counts.std()) / n_draws**0.5
    assert abs(penalty.item() / 0.7 * n_weights - float(counts.mean())) < 4 * error
    penalty.backward()
    assert all((nodes.logits.grad > 0).all() for nodes in sets)


@pytest.mark.parametrize("off", [{"block_penalty": 0}, {"learn_probabilities": False}])
def test_where_nothing_can_be_pressed_there_is_no_price(off):
    blockout = Blockout(3, **({"block_penalty": 0.5} | off))
    net = blockout.attach(make_mlp(6, 4), torch.zeros(1, 6))
    assert blockout.penalty(net) is None
