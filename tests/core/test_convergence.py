"""A fit that learned nothing says so once; one that learned is silent."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_structreg import (
    BlockoutClassifier,
    BlockoutRegressor,
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressor,
    DropClusterClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.baselines import L2SP, DropBlock, Dropout, SpatialDropout
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES, IterativePruning
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor
from sklearn_structreg.dropcluster import DropCluster

X, Y = load_wine(return_X_y=True)
LABELS = np.column_stack([Y == 0, Y > 0])
NUMBERS = load_diabetes(return_X_y=True)
DIGITS, DIGIT = (a[:300] for a in load_digits(n_class=4, return_X_y=True))
DIGITS = DIGITS / 16
RARE = (np.arange(len(X)) % 60 == 0).astype(int)
NOISE = np.random.default_rng(0).integers(0, 2, len(X))
IMAGE = {"image_shape": (1, 8, 8)}
TINY = {"learning_rate": 1e-9}
USUAL = {"learning_rate": 0.05}
SLOW = {"learning_rate": 0.01}  # a learning rate for numbers
RAW = {"standardize": False}
SCALED = {"standardize": True}
TEN = {"max_epochs": 10, "random_state": 0}
LONG = {"max_epochs": 40, "random_state": 0}
HEADS = {"n_clusters": 2, "head_layer_sizes": (8,)}


def with_logarithms(shape, n_outputs):
    """Return a network whose outputs are logarithms of probabilities."""
    return nn.Sequential(nn.Linear(*shape, n_outputs), nn.LogSoftmax(1))


class Shifted(nn.Module):
    """Has a matrix of zeros and an empty branch, neither of which does any harm."""

    def __init__(self):
        super().__init__()
        self.body, self.branch = nn.Linear(13, 3), nn.Linear(13, 3, bias=False)
        self.shift = nn.Parameter(torch.zeros(1, 13), requires_grad=False)
        nn.init.zeros_(self.branch.weight.requires_grad_(False))

    def forward(self, x):
        return self.body(x + self.shift) + self.branch(x)


def classifier(*regularizers, **params):
    return StructuredClassifier(
        regularizers=list(regularizers) or None, **(TEN | params)
    )


def regressor(*regularizers, **params):
    return StructuredRegressor(
        regularizers=list(regularizers) or None, **(TEN | params)
    )


def dropcluster(**params):
    return DropClusterClassifier(**(IMAGE | TEN | params))


def informed(estimator=None, **params):
    return SelfInformedClassifier(estimator, **(HEADS | TEN | params))


# name: estimator, samples, targets, words of the warning, the change it asks for
HOPELESS = {
    "raw": (classifier(**RAW), X, Y, "one class alone.*standardize=True", SCALED),
    "raw x 255": (classifier(**RAW), 255 * X, Y, "class frequencies alone", SCALED),
    "tiny rate": (classifier(**TINY), X, Y, "raise learning_rate=1e-09", USUAL),
    "huge rate": (
        classifier(optimizer="adam", learning_rate=1e3),
        *(X, Y, "lower learning_rate=1000", SLOW),
    ),
    "decay": (
        classifier(weight_decay=30.0),
        *(X, Y, "no better than.*lower weight_decay=30", {"weight_decay": 0.0}),
    ),
    "early stop, raw": (
        classifier(early_stopping=True, **RAW),
        *(X, Y, "1.08.*set standardize=True", SCALED),
    ),
    "stop at once": (  # there is nothing to learn in noise, whatever one changes
        classifier(early_stopping=True, learning_rate=0.3, validation_fraction=0.3),
        *(X, NOISE, "no epoch better than the first, of validation loss 0.678", None),
    ),
    "margin, tiny rate": (
        classifier(criterion=nn.MultiMarginLoss, **TINY),
        *(X, Y, "same prediction for every sample.*raise learning_rate", USUAL),
    ),
    "smooth labels, decay": (
        classifier(
            criterion=nn.CrossEntropyLoss(label_smoothing=0.1), weight_decay=30.0
        ),
        *(X, Y, "same prediction.*weight_decay=30", {"weight_decay": 0.0}),
    ),
    "logarithms, raw": (
        classifier(module=with_logarithms, criterion=nn.NLLLoss, learning_rate=1e-12),
        *(X, Y, "same prediction for every sample", SCALED | USUAL),
    ),
    "labels, tiny rate": (classifier(**TINY), X, LABELS, "raise learning_rate", USUAL),
    "dataset, tiny rate": (
        classifier(**TINY),
        *(TensorDataset(torch.tensor(X), torch.tensor(Y)), None),
        *("frequencies alone, 1.08.*raise learning_rate", USUAL),
    ),
    "labels, raw": (classifier(**RAW), X, LABELS, "set standardize=True", SCALED),
    "numbers, tiny rate": (
        regressor(**TINY),
        *(*NUMBERS, "that of the mean alone, 1; raise learning_rate", SLOW),
    ),
    "numbers, huge rate": (
        regressor(learning_rate=1e3),
        *(*NUMBERS, "e\\+.* no better than that of the mean.*lower learning_r", SLOW),
    ),
    "numbers, raw": (regressor(**RAW), X, Y + 0.0, "set standardize=True", SCALED),
    "absolute error, tiny rate": (
        regressor(criterion=nn.L1Loss, **TINY),
        *(*NUMBERS, "same prediction for every sample, 0.84.*raise lear", SLOW),
    ),
    "cges": (
        CGESClassifier(alpha=100, **TEN),
        *(X, Y, "no weight left.*lower alpha=100 of 'cges'.$", {"alpha": 0.01}),
    ),
    "cges, strengths": (
        CGESClassifierCV(alphas=[100.0], cv=2, **TEN),
        *(X, Y, "no weight left.*; give lower alphas than 100.$", {"alphas": [0.01]}),
    ),
    "group, adam": (
        CGESClassifier(
            alpha=5, penalty="group", optimizer="adam", learning_rate=0.05, **TEN
        ),
        *(X, Y, "lower alpha=5 of 'cges'", {"alpha": 0.01, **SLOW}),
    ),
    "l2 penalty": (
        CGESClassifier(alpha=100, penalty="l2", **TEN),
        *(X, Y, "one class alone.*lower alpha=100 of 'cges'", {"alpha": 0.01}),
    ),
    "cges beside l2sp": (
        CGESClassifier(alpha=100, regularizers=[L2SP(0.1)], **TEN),
        *(X, Y, "no weight left.*lower alpha=100 of 'cges'.$", {"alpha": 0.01}),
    ),
    "cges in a list": (
        classifier(("sparse", CGES(100.0))),
        *(X, Y, "lower alpha=100 of 'sparse'", {"regularizers__sparse__alpha": 0.01}),
    ),
    "cges, raw": (CGESClassifier(**RAW, **TEN), X, Y, "set standardize=True", SCALED),
    "cges of numbers": (
        CGESRegressor(alpha=100, **LONG),
        *(*NUMBERS, "lower alpha=100 of 'cges'", {"alpha": 0.01}),
    ),
    "cges of raw numbers": (
        CGESRegressor(**RAW, **TEN),
        *(X, Y + 0.0, "mean alone, 1; set standardize=True", SCALED),
    ),
    "pruned away": (
        classifier(IterativePruning(0.003), hidden_layer_sizes=(30, 30, 30)),
        *(X, Y, "raise target_density=0.003 of 'iterativepruning'"),
        {"regularizers__iterativepruning__target_density": 0.9},
    ),
    "l2sp, proximal": (
        classifier(L2SP(1e6, how="proximal")),
        *(X, Y, "lower alpha=1e\\+06 of 'l2sp'", {"regularizers__l2sp__alpha": 0.01}),
    ),
    "l2sp, penalty": (
        classifier(L2SP(100.0)),
        *(X, Y, "lower alpha=100 of 'l2sp'", {"regularizers__l2sp__alpha": 0.01}),
    ),
    "dropout": (
        classifier(Dropout(0.999)),
        *(X, Y, "lower drop_rate=0.999", {"regularizers__dropout__drop_rate": 0.5}),
    ),
    "spatial dropout": (
        classifier(SpatialDropout(0.999), **IMAGE),
        *(DIGITS, DIGIT, "lower drop_rate=0.999 of 'spatialdropout'"),
        {"regularizers__spatialdropout__drop_rate": 0.1},
    ),
    "blockout": (
        BlockoutClassifier(init_probability=1e-6, learn_probabilities=False, **TEN),
        *(X, Y, "raise init_probability=1e-06", {"init_probability": 0.5}),
    ),
    "blockout, one cluster": (
        BlockoutClassifier(n_clusters=1, init_probability=1e-3, **TEN),
        *(X, Y, "raise init_probability=0.001", {"init_probability": 0.9}),
    ),
    "blockout, raw": (
        BlockoutClassifier(**RAW, **TEN),
        *(255 * X, Y, "set standardize=True", SCALED),
    ),
    "blockout, tiny rate": (
        BlockoutClassifier(**TINY, **TEN),
        *(X, Y, "change learning_rate=1e-09", USUAL),
    ),
    "blockout of numbers": (
        BlockoutRegressor(init_probability=1e-6, learn_probabilities=False, **LONG),
        *(*NUMBERS, "raise init_probability=1e-06"),
        {"init_probability": 0.9},
    ),
    "blockout in a list": (
        classifier(Blockout(init_probability=1e-6, learn_probabilities=False)),
        *(X, Y, "init_probability=1e-06 of 'blockout'"),
        {"regularizers__blockout__init_probability": 0.5},
    ),
    "stopped before dropcluster": (
        dropcluster(
            start_epoch=20,
            max_epochs=40,
            early_stopping=True,
            n_iter_no_change=3,
            learning_rate=0.3,
        ),
        *(DIGITS, DIGIT, "not begun.*lower start_epoch=20", {"start_epoch": 0, **SLOW}),
    ),
    "stopped before the fifth": (
        dropcluster(
            early_stopping=True, n_iter_no_change=1, max_epochs=200, start_epoch=20
        ),
        *(DIGITS, DIGIT, "lower start_epoch=20", {"start_epoch": 0}),
    ),
    "dropcluster too late": (
        dropcluster(start_epoch=20),
        *(DIGITS, DIGIT, "'dropcluster' has not begun.* 10 epochs", {"start_epoch": 2}),
    ),
    "dropcluster in a list, too late": (
        classifier(DropCluster(start_epoch=20), **IMAGE),
        *(DIGITS, DIGIT, "lower start_epoch=20"),
        {"regularizers__dropcluster__start_epoch": 2},
    ),
    "dropcluster, tiny rate": (
        dropcluster(start_epoch=0, **TINY),
        *(DIGITS, DIGIT, "change learning_rate=1e-09", USUAL),
    ),
    "self-informed, tiny rate": (
        informed(**TINY),
        *(X, Y, "raise learning_rate=1e-09", USUAL),
    ),
    "self-informed, raw": (
        informed(**RAW),
        *(255 * X, Y, "set standardize=True", SCALED),
    ),
    "network without success": (
        informed(classifier(**TINY)),
        *(X, Y, "raise learning_rate=1e-09", {"estimator__learning_rate": 0.05}),
    ),
    "network and heads without success": (
        informed(classifier(**TINY), **TINY),
        *(X, Y, "raise learning_rate=1e-09"),
        {"estimator__learning_rate": 0.05, **USUAL},
    ),
    "heads without success": (
        informed(classifier(), learning_rate=1e-12, fresh_classifier=True),
        *(X, Y, "close to that of.*raise learning_rate=1e-12", USUAL),
    ),
}
FINE = {
    "plain": (classifier(), X, Y),
    "x 255": (classifier(), 255 * X, Y),
    "offset": (classifier(), X + 1e9, Y),
    "float64": (classifier(dtype="float64"), X, Y),
    "adam": (classifier(optimizer="adam", learning_rate=0.01), X, Y),
    "one class": (classifier(), X, np.ones(len(X))),
    "blockout of one class": (BlockoutClassifier(**TEN), X, np.ones(len(X))),
    "harmless zeros": (classifier(module=Shifted, **SCALED), X, Y),
    "rare class": (classifier(max_epochs=100), X, RARE),
    "noise by heart": (classifier(max_epochs=200), X, NOISE),
    "class weights": (classifier(class_weight="balanced", **LONG), X, Y > 1),
    "labels": (classifier(), X, LABELS),
    "early stopping": (classifier(early_stopping=True), X, Y),
    "dataset": (
        classifier(**SCALED),
        TensorDataset(torch.tensor((X - X.mean(0)) / X.std(0)), torch.tensor(Y)),
        None,
    ),
    "margin": (classifier(criterion=nn.MultiMarginLoss), X, Y),
    "smooth labels": (
        classifier(criterion=nn.CrossEntropyLoss(label_smoothing=0.1)),
        *(X, Y),
    ),
    "logarithms": (
        classifier(module=with_logarithms, criterion=nn.NLLLoss, **SCALED),
        *(X, Y),
    ),
    "images": (classifier(**IMAGE), DIGITS, DIGIT),
    "l2sp": (classifier(L2SP(0.01)), X, Y),
    "dropout": (classifier(Dropout(0.5)), X, Y),
    "dropblock": (classifier(DropBlock(0.2), **IMAGE), DIGITS, DIGIT),
    "several": (classifier(Dropout(0.2), CGES(0.3), L2SP(0.01)), X, Y),
    "pruned": (classifier(IterativePruning(0.2)), X, Y),
    "cges": (CGESClassifier(**TEN), X, Y),
    "blockout": (BlockoutClassifier(**LONG), X, Y),
    "soft blockout": (BlockoutClassifier(assignment="soft", **TEN), X, Y),
    "dropcluster": (dropcluster(), DIGITS, DIGIT),
    "dropcluster off": (dropcluster(drop_rate=0, start_epoch=50), DIGITS, DIGIT),
    "dropcluster on three pixels": (classifier(DropCluster()), X[:, :3], Y),
    "self-informed": (informed(), X, Y),
    "fine-tuned": (informed(fine_tune=True, n_rounds=2), X, Y),
    "fitted network": (informed(classifier().fit(X, Y)), X, Y),
    "no heads": (informed(n_clusters=0), X, Y),
    "numbers": (regressor(**LONG), *NUMBERS),
    "absolute error": (regressor(criterion=nn.L1Loss, **LONG), *NUMBERS),
    "one number": (regressor(), NUMBERS[0], np.ones(len(NUMBERS[1]))),
    "several numbers": (regressor(**LONG), X, LABELS + 0.5),
    "cges of numbers": (CGESRegressor(**LONG), *NUMBERS),
    "blockout of numbers": (BlockoutRegressor(**LONG), X, Y + 0.0),
}


def fit_silently(estimator, samples, target):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.fit(samples, target)


@pytest.mark.parametrize("name", HOPELESS)
def test_hopeless_settings_warn_once_of_a_change_that_helps(name):
    estimator, samples, target, words, change = HOPELESS[name]
    estimator = clone(estimator)
    with pytest.warns(ConvergenceWarning, match=words) as caught:
        estimator.fit(samples, target)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    if change is not None:
        fit_silently(estimator.set_params(**change), samples, target)


@pytest.mark.parametrize("name", FINE)
def test_fits_that_learned_are_silent(name):
    estimator, samples, target = FINE[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clone(estimator).fit(samples, target)
    assert [str(warning.message) for warning in caught] == []


def test_partial_fit_does_not_warn():
    fit = classifier(**TINY).partial_fit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(X, Y, classes=range(3))
    dropcluster().partial_fit(DIGITS, DIGIT, classes=range(4))
