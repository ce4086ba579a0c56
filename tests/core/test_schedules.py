"""Schedules of the learning rate: every stage of a training has one of its own."""

import numpy as np
import pytest
import torch
from checkpoint_cases import halving, linear, one_cycle, plateau
from sklearn.base import clone
from skorch.callbacks import Callback
from torch.optim import lr_scheduler

from sklearn_structreg import StructuredClassifier
from sklearn_structreg.core import Regularizer
from sklearn_structreg.core.parameters import component, parameter


@component
class Stages(Regularizer):
    """Names epochs at which schedules begin anew."""

    starts: tuple = parameter((), [tuple], "tuple", "Epochs.", kw_only=False)

    def schedule_starts(self, module, max_epochs):
        return self.starts


def by_hand(schedule, lengths, losses):
    """Return every epoch's rates, of torch's own scheduler over each of the stages."""
    rates, losses = [], iter(losses)
    for length in lengths:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.05, 0.9)
        made = schedule and schedule(optimizer, length)
        for _ in range(length):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            watched = isinstance(made, lr_scheduler.ReduceLROnPlateau)
            loss = [next(losses)] if watched else []
            if made:
                made.step(*loss)
    return rates


def cosine(optimizer, n_epochs):
    return lr_scheduler.CosineAnnealingLR(optimizer, n_epochs)


@pytest.mark.parametrize(
    ("schedule", "torchs"),
    [("cosine", cosine), *((f, f) for f in (linear, one_cycle, plateau, halving))],
)
@pytest.mark.parametrize(
    ("starts", "lengths"), [((), [9]), ((0, 3, 4, 9, 12), [3, 1, 5])]
)
def test_each_stage_has_a_schedule_over_its_own_epochs(
    blobs, schedule, torchs, starts, lengths
):
    model = StructuredClassifier(
        lr_schedule=schedule,
        max_epochs=9,
        regularizers=[Stages(starts)],
        random_state=0,
    ).fit(*blobs)
    history = model.history_
    losses = history[:, "train_loss"]
    assert history[:, "event_lr"] == by_hand(torchs, lengths, losses)


def test_stages_of_several_regularizers_and_no_schedule(blobs):
    both = [Stages((2,)), Stages((4, 2))]
    model = StructuredClassifier(lr_schedule="cosine", max_epochs=5, regularizers=both)
    rates = clone(model).fit(*blobs).history_[:, "event_lr"]
    assert rates == by_hand(cosine, [2, 2, 1], [])
    model.set_params(lr_schedule=None, random_state=0).fit(*blobs)
    plain = StructuredClassifier(max_epochs=5, random_state=0).fit(*blobs)
    assert torch.equal(model.module_[-1].weight, plain.module_[-1].weight)


def test_a_rate_of_its_own_comes_back_in_every_stage(blobs):
    @component
    class Slow(Stages):
        def param_groups(self, module):
            return [{"params": [module[-1].bias], "lr_factor": 0.1}]

    seen = []

    class Rates(Callback):
        def on_epoch_begin(self, net, **kwargs):
            seen.append([group["lr"] for group in net.optimizer_.param_groups])

    settings = {"regularizers": [Slow((2,))], "callbacks": [Rates()], "max_epochs": 5}
    StructuredClassifier(lr_schedule="cosine", **settings).fit(*blobs)
    one, other = np.transpose(seen)
    assert list(one) == by_hand(cosine, [2, 3], [])
    np.testing.assert_allclose(other, 0.1 * one)
