"""What became of the cluster probabilities: section 6's three outcomes, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sklearn_structreg.blockout.memberships import FloatArray, check_probabilities

__all__ = ["Diagnosis", "NodeSetDiagnosis", "diagnose"]

MARGIN = 0.1  # a probability within this of its start has not moved
DECIDED = 0.2  # within this of 0 or of 1 it is decided
MOST = 0.9  # share of the probabilities that "all" stands for
SOME = 0.1  # share on each side that "some" stands for

MEANINGS = {
    "diverged": (
        "some probabilities rose and others fell: a learned clustering, the surer the "
        "more of them are decided (outcome 1)"
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
        "nearly all probabilities fell: the net thins itself out (none of the paper's "
        "outcomes)"
    ),
    "mixed": (
        "some probabilities moved, most of them one way, and others stayed: between "
        "the paper's outcomes, and longer training may tell"
    ),
}


@dataclass(frozen=True)
class NodeSetDiagnosis:
    """What became of one node set's probabilities.

    Attributes
    ----------
    outcome : str
        "diverged", "unchanged", "towards one", "towards zero" or "mixed".
    clusters : tuple of str
        The outcome of each cluster by itself, a column of P.
    risen, fallen : float
        Shares of the probabilities more than 0.1 above and below their start.
    decided : float
        Share within 0.2 of zero or one.
    n_nodes : int
        Nodes in the set.
    """

    outcome: str
    clusters: tuple[str, ...]
    risen: float
    fallen: float
    decided: float
    n_nodes: int


@dataclass(frozen=True)
class Diagnosis:
    """What became of the cluster probabilities, by node set.

    ``print(diagnosis)`` says it in words.

    Attributes
    ----------
    node_sets : tuple of NodeSetDiagnosis
        P_0, the inputs of the chain, to P_m, its outputs.
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
    """Name what became of the cluster probabilities (section 6 of the paper).

    A probability has risen or fallen if it is more than 0.1 from where it started. Of
    one node set, or one cluster of it, the outcome is

    - "towards one" (the paper's third) if 90 % have risen,
    - "towards zero" if 90 % have fallen,
    - "diverged" (the first) if at least 10 % have risen and 10 % have fallen,
    - "unchanged" (the second) if at most 10 % have moved at all,
    - "mixed" otherwise.

    Parameters
    ----------
    probabilities : sequence of array-like of shape (d_j, k)
        P_0 to P_m after training.
    init_probability : float or sequence of float, default=0.5
        Where all of them started, or those of each node set. In (0.1, 0.9).

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        If `init_probability` leaves no room to rise or fall, or is not one for each
        node set.

    Examples
    --------
    >>> from sklearn_structreg.blockout import diagnose
    >>> print(diagnose([[[0.5, 0.55], [0.45, 0.5]], [[0.95, 0.1], [0.02, 0.9]]]))
    P_0, 2 nodes: unchanged (0% risen, 0% fallen, 0% decided)
    P_1, 2 nodes: diverged (50% risen, 50% fallen, 100% decided)
    unchanged: hardly any probability moved: ...
    diverged: some probabilities rose and others fell: ...
    """
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
