"""Section 6's outcomes of learning for the cluster probabilities, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sklearn_structreg.blockout.memberships import FloatArray, check_probabilities

__all__ = ["Diagnosis", "NodeSetDiagnosis", "diagnose"]

MARGIN = 0.1  # a probability within this of its start has not moved
DECIDED = 0.2  # within this of 0 or of 1 it is decided
MOST = 0.9  # share of the probabilities that counts as all
SOME = 0.1  # share that counts as some

MEANINGS = {
    "diverged": (
        "some probabilities rose and others fell: a learned clustering, the clearer, "
        "the more of them are decided (outcome 1)"
    ),
    "unchanged": (
        "hardly any probability moved: blocks may help as regularization, but which "
        "nodes they group is arbitrary (outcome 2)"
    ),
    "towards one": (
        "nearly all probabilities rose: blocks seem not to help, and a plain "
        "fully-connected net may do better (outcome 3)"
    ),
    "towards zero": (
        "nearly all probabilities fell: the net removes its own weights (none of the "
        "paper's outcomes)"
    ),
    "mixed": (
        "some probabilities moved, most of them one way, and others stayed: between "
        "the paper's outcomes; longer training may decide"
    ),
}


@dataclass(frozen=True)
class NodeSetDiagnosis:
    """The outcome of one node set: see `Diagnosis`."""

    outcome: str
    clusters: tuple[str, ...]
    risen: float
    fallen: float
    decided: float
    n_nodes: int


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of learning for the cluster probabilities (section 6 of the paper).

    A probability has risen or fallen if it is more than 0.1 from its start. The outcome
    of a node set, or of one cluster of it, is

    - "towards one" (the paper's third) if 90 % have risen,
    - "towards zero" if 90 % have fallen,
    - "diverged" (the first) if at least 10 % have risen and 10 % have fallen,
    - "unchanged" (the second) if at most 10 % have moved at all,
    - "mixed" otherwise.

    ``print(diagnosis)`` shows it in words.

    Attributes
    ----------
    node_sets : tuple of NodeSetDiagnosis
        One for each node set from P_0, the inputs of the chain, to P_m, its outputs.
        Each has an `outcome`; `clusters`, the outcome of each column of P by itself;
        `risen` and `fallen`, shares of the probabilities; `decided`, the share within
        0.2 of zero or one; and `n_nodes`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import BlockoutClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = BlockoutClassifier(max_epochs=1, random_state=0).fit(X, y)
    >>> [nodes.outcome for nodes in net.diagnose().node_sets]
    ['unchanged', 'unchanged', 'unchanged']
    """

    node_sets: tuple[NodeSetDiagnosis, ...]

    def __str__(self) -> str:
        lines = []
        for j, found in enumerate(self.node_sets):
            lines.append(
                f"P_{j}, {found.n_nodes} nodes: {found.outcome} "
                f"({found.risen:.0%} risen, {found.fallen:.0%} fallen, "
                f"{found.decided:.0%} decided)"
            )
            alone = [
                f"{cluster} {outcome}"
                for cluster, outcome in enumerate(found.clusters)
                if outcome != found.outcome
            ]
            if alone:
                lines.append(f"  clusters by themselves: {', '.join(alone)}")
        outcomes = dict.fromkeys(found.outcome for found in self.node_sets)
        lines += [f"{outcome}: {MEANINGS[outcome]}" for outcome in outcomes]
        return "\n".join(lines)


def diagnose(
    probabilities: Sequence[ArrayLike],
    init_probability: float | Sequence[float] = 0.5,
) -> Diagnosis:
    """Compare cluster probabilities with their start, or with each node set's own."""
    matrices = check_probabilities(probabilities)
    starts = np.atleast_1d(init_probability).tolist()
    if np.ndim(init_probability) == 0:
        starts *= len(matrices)
    if len(starts) != len(matrices):
        raise ValueError(
            f"init_probability holds {len(starts)} values for {len(matrices)} node "
            "sets; give one for all or one for each."
        )
    for start in starts:
        if not MARGIN < start < 1 - MARGIN:
            raise ValueError(
                f"init_probability={start} leaves no room to rise or fall by "
                f"{MARGIN}; from there the outcomes cannot be told apart."
            )
    pairs = zip(matrices, starts, strict=True)
    return Diagnosis(tuple(_diagnose_node_set(P, start) for P, start in pairs))


def _diagnose_node_set(P: FloatArray, start: float) -> NodeSetDiagnosis:
    return NodeSetDiagnosis(
        outcome=_outcome(P, start),
        clusters=tuple(_outcome(column, start) for column in P.T),
        risen=float(np.mean(start + MARGIN < P)),
        fallen=float(np.mean(start - MARGIN > P)),
        decided=float(np.mean((P <= DECIDED) | (P >= 1 - DECIDED))),
        n_nodes=len(P),
    )


def _outcome(P: FloatArray, start: float) -> str:
    risen, fallen = np.mean(start + MARGIN < P), np.mean(start - MARGIN > P)
    if risen >= MOST:
        return "towards one"
    if fallen >= MOST:
        return "towards zero"
    if min(risen, fallen) >= SOME:
        return "diverged"
    return "unchanged" if risen + fallen <= SOME else "mixed"
