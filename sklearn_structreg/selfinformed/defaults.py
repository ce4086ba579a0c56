"""The values behind "auto", and the largest values that the data can carry."""

# Section 4: K = 100 of 17,000 classes. A larger share finds planted groups less well.
_PAPER_SHARE = 100 / 17_000


def resolve_top_k(top_k: int | str, n_classes: int, source: str) -> int | None:
    """Check K of Eq. 2, or take the paper's share of the classes; None: no ranking.

    >>> [resolve_top_k("auto", n, "confusion") for n in (2, 3, 10, 100, 1000, 17000)]
    [1, 2, 2, 2, 6, 100]
    """
    if source == "precomputed":
        return None
    most = max(1, n_classes - 1)
    if top_k == "auto":
        return min(most, max(2, min(100, round(_PAPER_SHARE * n_classes))))
    if int(top_k) > most:
        raise ValueError(
            f"top_k={top_k}, but there are scores of {n_classes} class(es), and where "
            f"all are detected no two can be told apart; give at most {most} or 'auto'."
        )
    if source.endswith("codetection") and int(top_k) == 1 and n_classes > 1:
        raise ValueError(
            "top_k=1 leaves no two classes detected together; give at least 2 to count "
            "co-detections."
        )
    return int(top_k)


def check_n_groups(n_clusters: int, n_classes: int, n_connected: int) -> int:
    """Check the number of groups against that of classes that are confused."""
    most = max(1, n_connected)
    if n_clusters > most:
        raise ValueError(
            f"n_clusters={n_clusters}, but only {n_connected} of the {n_classes} "
            "class(es) share a detection with another class; ask for at most "
            f"{most} groups, raise top_k or give more held-out samples."
        )
    return n_clusters
