"""Iterative pruning: which weights go, when, and that they stay away."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, Freezer
from torch import nn

from sklearn_structreg.cges import (
    CGES,
    CGESClassifier,
    CGESRegressor,
    IterativePruning,
)
from sklearn_structreg.cges.pruning import (
    kept_counts,
    pruning_epochs,
    smallest_weights,
)
from sklearn_structreg.core import (
    RegularizerCallback,
    StructuredClassifier,
    make_mlp,
)

FAST = {"max_epochs": 6, "random_state": 0}


class ZerosAfterEveryBatch(Callback):
    """Keeps, after each training batch, where the zeros of the weights are."""

    def __init__(self):
        self.zeros = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            weights = [p for p in net.module_.parameters() if p.ndim > 1]
            self.zeros.append(torch.cat([(w == 0).flatten() for w in weights]))


def weights(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.module_.parameters()])


def n_nonzero(module):
    return sum(int((p != 0).sum()) for p in module.parameters() if p.ndim > 1)


# ---- which weights -------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_smallest_go_and_exactly_as_many_as_asked(data):
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    # Few values: many ties.
    values = st.sampled_from([0.0, 0.5, -0.5, 1.0, -2.0, 3.0])
    layers = [
        torch.tensor(data.draw(st.lists(values, min_size=n, max_size=n))) for n in sizes
    ]
    n_kept = data.draw(st.integers(len(sizes), sum(sizes)))
    before = copy.deepcopy(layers)
    masks = smallest_weights(layers, n_kept)
    assert all(map(torch.equal, layers, before))
    # By brute force: the first largest of each layer, then the largest of the others.
    entries = [
        (layer, i) for layer, n in enumerate(sizes) for i in range(n)
    ]  # in order of appearance
    size = {e: abs(float(layers[e[0]][e[1]])) for e in entries}
    largest = [(layer, int(w.abs().argmax())) for layer, w in enumerate(layers)]
    rest = sorted((e for e in entries if e not in largest), key=lambda e: -size[e])
    kept = {*largest, *rest[: n_kept - len(largest)]}
    assert {e for e in entries if not masks[e[0]][e[1]]} == kept
    # A further round takes away only.
    fewer = data.draw(st.integers(len(sizes), n_kept))
    again = smallest_weights(layers, fewer, masks)
    assert all((new | ~old).all() for new, old in zip(again, masks, strict=True))
    assert sum(int((~mask).sum()) for mask in again) == fewer


@given(st.integers(1, 10**7), st.integers(1, 10), st.floats(1e-6, 1))
def test_rounds_keep_equal_shares_down_to_the_target(n, n_rounds, share):
    target = max(1, int(share * n))
    counts = [n, *kept_counts(n, target, n_rounds)]
    assert counts[-1] == target
    assert counts == sorted(counts, reverse=True)
    for r, count in enumerate(counts):
        assert abs(count - n * (target / n) ** (r / n_rounds)) <= 1


@given(st.integers(1, 200), st.integers(1, 20), st.floats(0, 0.99))
def test_the_last_round_leaves_half_of_the_epochs_after_the_first(
    max_epochs, n_rounds, start
):
    if np.ceil(start * max_epochs) >= max_epochs:
        with pytest.raises(ValueError, match="leaves no epoch to fine-tune"):
            pruning_epochs(max_epochs, n_rounds, start)
        return
    epochs = pruning_epochs(max_epochs, n_rounds, start)
    assert len(epochs) == n_rounds
    first = epochs[0]
    assert first == np.ceil(start * max_epochs)
    assert epochs[-1] == (first if n_rounds == 1 else (first + max_epochs) // 2)
    gaps = np.diff(epochs)
    assert (gaps >= 0).all()
    assert n_rounds == 1 or gaps.max() - gaps.min() <= 1


# ---- in the estimator ----------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("penalty", ["cges", "l2"])
def test_pruned_weights_are_zero_after_every_step(digits, optimizer, penalty):
    X, y = digits
    watch = ZerosAfterEveryBatch()
    model = CGESClassifier(
        target_density=0.1,
        pruning_rounds=2,
        pruning_start=0.3,
        alpha=1e-3,
        penalty=penalty,
        optimizer=optimizer,
        learning_rate=0.05 if optimizer == "sgd" else 5e-3,
        batch_size=32,
        callbacks=[watch],
        **FAST,
    ).fit(X, y)
    zeros = torch.stack(watch.zeros).reshape(6, -1, 7400)
    n_zeros = zeros.sum(2).float()
    # Two epochs dense, two at the geometric mean, two at the target.
    middle = 7400 - round(7400 * 0.1**0.5)
    assert (n_zeros[:2] < 1000).all()
    assert (n_zeros[2:4] >= middle).all()
    assert (n_zeros[2:4] < 6000).all()
    assert (n_zeros[4:] >= 6660).all()
    assert bool((zeros[5, -1] >= zeros[2, 0]).all()) or penalty == "cges"
    if penalty == "l2":  # nothing else makes zeros
        assert (n_zeros[4:] == 6660).all()
        assert (zeros[4:] == zeros[4, 0]).all()
    assert model.score(X, y) > 0.8


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("density", [0.003, 0.1, 0.37, 0.9999])
def test_the_density_is_reached_to_within_one_weight(digits, density):
    X, y = digits[0][:300], digits[1][:300]
    model = CGESClassifier(
        target_density=density, alpha=0, max_epochs=3, random_state=0
    ).fit(X, y)
    assert abs(n_nonzero(model.module_) - density * 7400) <= 0.5
    assert all((p != 0).any() for p in model.module_.parameters())
    assert model.history_[-1, "sparsity"] == model.sparsity_


def test_what_is_pruned_are_the_smallest_weights_of_the_epoch_before(digits):
    X, y = digits
    dense = CGESClassifier(alpha=0, max_epochs=2, random_state=0).fit(X, y)
    model = CGESClassifier(
        alpha=0,
        target_density=0.2,
        pruning_rounds=1,
        pruning_start=0.5,
        max_epochs=4,
        random_state=0,
    ).fit(X, y)
    was = torch.cat([p.flatten() for p in dense.module_.parameters() if p.ndim > 1])
    now = torch.cat([p.flatten() for p in model.module_.parameters() if p.ndim > 1])
    assert was[now != 0].abs().min() >= was[now == 0].abs().max()


@pytest.mark.parametrize("shape", [None, (1, 8, 8)])
def test_without_a_target_it_is_the_plain_net_bit_for_bit(digits, shape):
    X, y = digits[0][:300], digits[1][:300]
    settings = {"image_shape": shape, "max_epochs": 3, "random_state": 0}
    plain = StructuredClassifier(**settings).fit(X, y)
    for density in (None, 1, 1.0):
        off = CGESClassifier(alpha=0, target_density=density, **settings).fit(X, y)
        assert torch.equal(weights(plain), weights(off))
    sparse = CGESClassifier(alpha=0.01, **settings).fit(X, y)
    both = CGESClassifier(alpha=0.01, target_density=1, **settings).fit(X, y)
    assert torch.equal(weights(sparse), weights(both))


@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_going_on_after_a_round_trip_equals_the_uninterrupted_run(
    digits, at, optimizer
):
    X, y = digits[0][:400], digits[1][:400]
    settings = {"target_density": 0.05, "pruning_rounds": 2, "optimizer": optimizer}
    # `partial_fit` knows no last epoch to rise to, or to rest before.
    settings |= {"alpha": 0.1, "ramp": 0, "refit": 0, "learning_rate": 0.01, **FAST}
    whole = CGESClassifier(**settings).fit(X, y)
    model = CGESClassifier(**settings)
    for epoch in range(6):
        model.partial_fit(X, y, classes=range(10))
        if epoch + 1 == at:
            model = pickle.loads(pickle.dumps(model))
    assert torch.equal(weights(model), weights(whole))
    assert n_nonzero(model.module_) <= 370
    copied = copy.deepcopy(model)
    copied.partial_fit(X, y)
    model.partial_fit(X, y)  # beyond the plan: the masks still hold
    assert torch.equal(weights(model), weights(copied))
    assert n_nonzero(model.module_) <= 370


def test_a_warm_start_keeps_what_is_pruned_and_prunes_on(digits):
    X, y = digits[0][:600], digits[1][:600]
    settings = {"alpha": 0, "warm_start": True, "pruning_start": 0.0, **FAST}
    model = CGESClassifier(target_density=0.3, **settings).fit(X, y)
    first = model.module_[0].weight == 0
    assert n_nonzero(model.module_) == 2220
    model.fit(X, y)  # trains on, with the same masks
    assert torch.equal(model.module_[0].weight == 0, first)
    model.set_params(pruning_start=0.5, max_epochs=1).fit(X, y)  # nothing to prune
    assert torch.equal(model.module_[0].weight == 0, first)
    model.set_params(pruning_start=0.0)
    model.set_params(target_density=0.1, max_epochs=2).fit(X, y)
    assert n_nonzero(model.module_) == 740
    assert bool((model.module_[0].weight == 0)[first].all())
    model.set_params(target_density=0.5, pruning_start=0.5).fit(X, y)
    assert n_nonzero(model.module_) == 3700
    model.set_params(target_density=None).fit(X, y)
    assert n_nonzero(model.module_) > 3700  # all that have a gradient grow back


def test_a_warm_start_that_fails_keeps_the_last_fit(digits):
    X, y = digits[0][:300], digits[1][:300]
    model = CGESClassifier(target_density=0.3, warm_start=True, **FAST).fit(X, y)
    before = weights(model)
    with pytest.raises(ValueError, match="pruned away"):
        model.set_params(target_density=1e-5).fit(X, y)
    with pytest.raises(ValueError, match="no epoch to fine-tune"):
        model.set_params(target_density=0.1, max_epochs=1).fit(X, y)
    assert torch.equal(weights(model), before)
    assert model.predict(X).shape == y.shape


def test_early_stopping_waits_for_the_last_round_and_brings_back_sparse_weights():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 20)), rng.integers(0, 2, 80)  # only noise: overfits
    model = CGESClassifier(
        alpha=0,
        target_density=0.2,
        pruning_rounds=3,
        pruning_start=0.5,
        early_stopping=True,
        n_iter_no_change=3,
        validation_fraction=0.5,
        max_epochs=100,
        random_state=0,
    ).fit(X, y)
    losses = model.history_[:, "valid_loss"]
    last_round = pruning_epochs(100, 3, 0.5)[-1]
    assert np.argmin(losses) < 50  # it would have come back before pruning
    assert last_round + 3 < model.n_iter_ < 100
    assert n_nonzero(model.module_) == round(0.2 * 2200)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_density": 0}, "'target_density' parameter of CGESClassifier"),
        ({"target_density": 1.2}, "'target_density' parameter of CGESClassifier"),
        ({"target_density": -0.1}, "'target_density' parameter of CGESClassifier"),
        ({"pruning_rounds": 0}, "'pruning_rounds' parameter of CGESClassifier"),
        ({"pruning_start": 1.0}, "'pruning_start' parameter of CGESClassifier"),
        ({"target_density": 1e-4}, "keep 0 of 700 .* 2 layers: .* pruned away"),
        ({"target_density": 0.002}, "keep 1 of 700 weights, not even one for each"),
        ({"target_density": 0.5, "max_epochs": 1}, "max_epochs=1 leaves no epoch"),
    ],
)
def test_bad_input_is_refused_before_training(blobs, settings, message):
    with pytest.raises(ValueError, match=message):
        CGESClassifier(**settings).fit(*blobs)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_least_density_of_the_message_is_taken(blobs):
    model = CGESClassifier(target_density=0.002, max_epochs=3)
    with pytest.raises(ValueError, match="Keep at least") as error:
        model.fit(*blobs)
    least = float(str(error.value).split()[-1].rstrip("."))
    model.set_params(target_density=least, alpha=0).fit(*blobs)
    assert n_nonzero(model.module_) == 2


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("density", [0.005, 0.05])
def test_compaction_in_place_keeps_the_zeros_and_prunes_no_further(digits, density):
    X, y = digits[0][:600], digits[1][:600]
    model = CGESClassifier(
        alpha=0, target_density=density, warm_start=True, max_epochs=10, random_state=0
    ).fit(X, y)
    before = model.decision_function(X)
    model = model.compact()
    n_left = n_nonzero(model.module_)
    zeros = [p == 0 for p in model.module_.parameters() if p.ndim > 1]
    assert sum(z.numel() for z in zeros) < 0.8 * 7400
    np.testing.assert_allclose(model.decision_function(X), before, atol=1e-5)
    pickle.loads(pickle.dumps(model)).partial_fit(X, y)
    model.partial_fit(X, y)
    model.fit(X, y)
    after = [p == 0 for p in model.module_.parameters() if p.ndim > 1]
    assert all(map(torch.equal, zeros, after))
    assert n_nonzero(model.module_) == n_left
    model.set_params(target_density=0.5 * n_left / sum(z.numel() for z in zeros))
    assert abs(n_nonzero(model.fit(X, y).module_) - n_left / 2) <= 1


def cosines(*lengths):
    return [0.05 * (1 + np.cos(np.pi * e / n)) / 2 for n in lengths for e in range(n)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_rate_falls_anew_from_each_round_to_come(digits):
    X, y = digits[0][:200], digits[1][:200]
    model = CGESClassifier(
        alpha=0,
        target_density=0.5,
        pruning_rounds=3,
        lr_schedule="cosine",
        max_epochs=12,
        warm_start=True,
        random_state=0,
    )

    def rates(**params):
        done = getattr(model, "n_iter_", 0)
        model.set_params(**params).fit(X, y)
        return model.history_[done:, "event_lr"]

    np.testing.assert_allclose(rates(), cosines(3, 2, 2, 5))
    np.testing.assert_allclose(rates(), cosines(12))  # nothing left to prune
    np.testing.assert_allclose(rates(target_density=0.3), cosines(3, 2, 2, 5))
    np.testing.assert_allclose(rates(target_density=None), cosines(12))
    stopped = rates(
        target_density=0.2, early_stopping=True, n_iter_no_change=1, learning_rate=1e-9
    )
    np.testing.assert_allclose(stopped, 2e-8 * np.array(cosines(3, 2, 2, 5)[:9]))
    model.set_params(early_stopping=False, learning_rate=0.05).partial_fit(X, y)
    assert model.net_.optimizer_.param_groups[0]["lr"] == 0.05


def test_a_regressor_is_pruned_as_well(digits):
    X, y = digits[0][:300], digits[1][:300].astype(float)
    model = CGESRegressor(
        alpha=0, target_density=0.1, learning_rate=0.01, max_epochs=20, random_state=0
    ).fit(X, y)
    assert n_nonzero(model.module_) == 650
    assert model.score(X, y) > 0.5


def test_other_parameters_between_partial_fits_keep_the_plan(digits):
    X, y = digits[0][:300], digits[1][:300]
    settings = {"target_density": 0.1, "pruning_rounds": 2, **FAST}
    model = CGESClassifier(alpha=0, pruning_start=0.4, **settings)  # epochs 3 and 4
    counts = []
    for epoch in range(6):
        model.set_params(alpha=1e-5 * epoch).partial_fit(X, y, classes=range(10))
        counts.append(n_nonzero(model.module_))
    assert counts[2] > 7000
    assert counts[3] == round(7400 * 0.1**0.5)
    assert counts[4:] == [740, 740]
    model.set_params(target_density=0.05, pruning_start=0.0, max_epochs=1)
    assert n_nonzero(model.partial_fit(X, y).module_) == 370
    model.set_params(target_density=None).partial_fit(X, y)
    assert n_nonzero(model.module_) > 370


def test_compaction_between_the_rounds_holds_the_zeros(digits):
    X, y = digits[0][:300], digits[1][:300]
    model = CGESClassifier(alpha=0, target_density=0.003, pruning_rounds=2, **FAST)
    for _ in range(3):  # the first round comes with the third
        model.partial_fit(X, y, classes=range(10))
    model = model.compact()
    n_left = n_nonzero(model.module_)
    for _ in range(3):
        model.partial_fit(X, y)
    assert n_nonzero(model.module_) == n_left


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_masks_are_on_the_gpu_while_training_and_on_the_cpu_in_a_pickle(digits):
    X, y = digits[0][:400], digits[1][:400]
    model = CGESClassifier(alpha=0, target_density=0.1, device="cuda", **FAST).fit(X, y)
    masks = model.regularizers_["iterativepruning"].masks_.values()
    assert all(mask.is_cuda for mask in masks)
    loaded = pickle.loads(pickle.dumps(model))
    masks = loaded.regularizers_["iterativepruning"].masks_.values()
    assert all(mask.device.type == "cpu" for mask in masks)
    for device in ("cpu", "cuda"):
        loaded.set_params(device=device).partial_fit(X, y)
        assert loaded.module_[0].weight.device.type == device
        assert n_nonzero(loaded.module_) == 740
    assert (loaded.feature_importances_ >= 0).all()


# ---- in a skorch net -----------------------------------------------------------


def pruning(*args, **kwargs):
    return "pruning", RegularizerCallback(IterativePruning(*args, **kwargs))


def skorch_net(*callbacks, **settings):
    return NeuralNetClassifier(
        make_mlp(64, 10),
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        optimizer__momentum=0.9,
        max_epochs=6,
        callbacks=list(callbacks),
        verbose=0,
        **settings,
    )


def test_the_callback_prunes_a_net_of_ones_own(digits):
    X, y = digits[0].astype(np.float32), digits[1]
    watch = ZerosAfterEveryBatch()
    net = skorch_net(pruning(0.1), watch)
    net.set_params(callbacks__pruning__regularizer=IterativePruning(0.05)).fit(X, y)
    assert n_nonzero(net.module_) == 370
    assert (torch.stack(watch.zeros[-12:]).sum(1) == 7030).all()
    assert not net.optimizer_._optimizer_step_post_hooks
    loaded = pickle.loads(pickle.dumps(net))
    for other in (net, loaded):
        torch.manual_seed(0)
        other.partial_fit(X, y, epochs=1)
        assert n_nonzero(other.module_) == 370
    net.fit(X, y)  # begins anew
    assert net.history[0, "train_loss"] > net.history[-1, "train_loss"]
    assert n_nonzero(net.module_) == 370


def test_the_callback_beside_a_penalty_and_early_stopping(digits):
    X, y = digits[0].astype(np.float32), digits[1]
    for order, refit, n_epochs in [(1, 0, 4), (-1, 0, 4), (1, 0.5, 5), (-1, 0.5, 5)]:
        penalty = CGES(1e-2, penalty="l1", ramp=0, refit=refit)
        callbacks = [
            ("stop", EarlyStopping(patience=1, threshold=10.0, load_best=True)),
            pruning(0.3, pruning_rounds=1),  # in epoch 3
            ("cges", RegularizerCallback(penalty)),
        ]
        net = skorch_net(*callbacks[::order]).fit(X, y)
        # No epoch improves by so much: it stops two epochs after the last round, or
        # after the end of the penalty.
        assert len(net.history) == n_epochs
        assert 0 < n_nonzero(net.module_) <= 2220


@pytest.mark.parametrize("at", [1, 3])  # the first round comes with epoch 3
def test_weights_that_are_frozen_neither_go_nor_count(digits, at):
    X, y = digits[0].astype(np.float32), digits[1]
    freezer = "freezer", Freezer("0.*", at=at)
    net = skorch_net(freezer, pruning(0.1, pruning_rounds=2)).fit(X, y)
    assert bool((net.module_[0].weight != 0).all())
    assert int((net.module_[2].weight != 0).sum()) == 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_density": 0.0}, "'target_density' parameter of IterativePruning"),
        ({"target_density": 1.5}, "'target_density' parameter of IterativePruning"),
        ({"target_density": "half"}, "'target_density' parameter of IterativePruning"),
        ({"pruning_rounds": 0}, "'pruning_rounds' parameter of IterativePruning"),
        ({"pruning_start": 1.0}, "'pruning_start' parameter of IterativePruning"),
        ({"target_density": 1e-6}, "pruned away"),
    ],
)
def test_the_callback_refuses_bad_input_and_leaves_the_net(digits, settings, message):
    X, y = digits[0].astype(np.float32), digits[1]
    net = skorch_net(pruning(**settings))
    with pytest.raises(ValueError, match=message):
        net.fit(X, y)
    if hasattr(net, "module_"):
        assert n_nonzero(net.module_) == 7400


@pytest.mark.parametrize("density", [None, 1, 1.0])
def test_off_it_is_the_plain_net_bit_for_bit(digits, density):
    X, y = digits[0][:300], digits[1][:300]
    plain = StructuredClassifier(**FAST).fit(X, y)
    off = StructuredClassifier(regularizers=[IterativePruning(density)], **FAST)
    assert torch.equal(weights(plain), weights(off.fit(X, y)))
