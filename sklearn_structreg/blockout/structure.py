"""The learned structure of a fitted network, for classifiers and regressors."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklearn_structreg.blockout.conversion import blockout_layers, fold, node_sets
from sklearn_structreg.blockout.diagnosis import Diagnosis, diagnose
from sklearn_structreg.blockout.hardening import HardenedNet, harden_network

__all__ = ["LearnedStructure"]


class LearnedStructure:
    """Mixin: the cluster probabilities, and networks made of them."""

    _one_module: Any
    score: Any
    _logits: Any

    @property
    def cluster_probabilities_(self) -> list[NDArray[Any]]:
        """P of every node set, from the inputs of the first layer to the outputs."""
        sets = node_sets(self._one_module)
        return [nodes.probabilities.detach().cpu().numpy() for nodes in sets]

    @property
    def expected_clusters_(self) -> list[NDArray[Any]]:
        """Mean number of clusters that each node of every node set belongs to."""
        return [p.sum(axis=1) for p in self.cluster_probabilities_]

    def fold(self) -> nn.Module:
        """Return a copy of the network with plain linear layers and the same outputs.

        Layers of other regularizers stay; `simplified_module` takes these out, too.

        Returns
        -------
        torch.nn.Module
            In evaluation mode, without node sets; every weight is the mean of its
            masked weights (Eq. 5).
        """
        check_is_fitted(self, "net_")
        return fold(self._one_module)

    def harden(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        threshold: float = 0.5,
    ) -> HardenedNet:
        """Make the learned structure real: a net of blocks, with zeros between them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), \
                default=None
            Samples to compare the scores on, best held out.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their targets, as in `score`.
        threshold : float in (0, 1], default=0.5
            A node is in a cluster from this probability on.

        Returns
        -------
        HardenedNet
            The net with zeros, the same as parallel branches, and a report to print.

        Raises
        ------
        ValueError
            If only one of X and y is given, or the threshold is out of range.
        """
        check_is_fitted(self, "net_")
        if (X is None) != (y is None):
            raise ValueError("Pass both X and y to compare scores, or neither.")
        layers, sets = blockout_layers(self._one_module), node_sets(self._one_module)
        name_of = {part: name for name, part in self._one_module.named_modules()}
        hardened = harden_network(
            self.fold(),
            [name_of[layer] for layer in layers],
            self.cluster_probabilities_,
            threshold,
            joins=[
                (sets.index(layer.inputs), sets.index(layer.outputs))
                for layer in layers
            ],
            costs=[layer.n_multiply_adds for layer in layers],
        )
        if X is None:
            return hardened
        other = copy.copy(self)
        other._logits = partial(self._logits, module=hardened.module)
        scores = self.score(X, y), other.score(X, y)
        return replace(hardened, score=scores[0], hardened_score=scores[1])

    def diagnose(self) -> Diagnosis:
        """Compare the probabilities with their start: section 6's outcomes in words.

        Returns
        -------
        Diagnosis
            By node set; print it.

        Raises
        ------
        ValueError
            If the probabilities started so near to 0 or 1 that outcomes are all alike.
        """
        check_is_fitted(self, "net_")
        starts = [nodes.init_probability for nodes in node_sets(self._one_module)]
        return diagnose(self.cluster_probabilities_, starts)
