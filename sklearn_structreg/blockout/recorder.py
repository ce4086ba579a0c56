"""The cluster probabilities of every epoch, in a skorch history."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_structreg.blockout.conversion import node_sets

__all__ = ["QUANTILES", "ProbabilityRecorder"]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
N_BINS = 50
COLUMNS = ("probability_histogram", "probability_quantiles")


class ProbabilityRecorder(Callback):
    """Write the distribution of each node set's probabilities into the history.

    Two columns, left out of the printed table: ``probability_histogram``, the counts in
    equal bins of [0, 1], and ``probability_quantiles`` (the paper's Fig. 7).
    """

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the lists out of the printed table and of loggers."""
        for _, callback in net.callbacks_:
            if hasattr(callback, "keys_ignored_"):
                callback.keys_ignored_.update(COLUMNS)

    @torch.no_grad()
    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record."""
        histograms, quantiles = [], []
        for nodes in node_sets(net.module_):
            p = nodes.probabilities.flatten().double().cpu()
            histograms.append(torch.histc(p, N_BINS, 0.0, 1.0).int().tolist())
            at = [round(q * (len(p) - 1)) for q in QUANTILES]
            quantiles.append(np.partition(p.numpy(), at)[at].tolist())
        net.history.record(COLUMNS[0], histograms)
        net.history.record(COLUMNS[1], quantiles)
