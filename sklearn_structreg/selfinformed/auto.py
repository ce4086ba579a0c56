"""What "auto" stands for, and what an explicit value may not exceed."""

# Section 4: K = 100 of 17,000 classes. A larger share finds planted groups less well.
_PAPER_SHARE = 100 / 17_000


def resolve_top_k(top_k: int | str, n_classes: int, source: str) -> int | None:
    """Return K for Eq. 2: the given one, checked, or the paper's share of the classes.

    Parameters
    ----------
    top_k : int or "auto"
        What was asked for.
    n_classes : int
        The number of columns of the scores.
    source : {"confusion", "codetection", "precomputed"} or a control of those
        What is counted.

    Returns
    -------
    top_k : int or None
        In [1, n_classes), or 1 for a single class; None if there is nothing to rank.

    Raises
    ------
    ValueError
        If with this K all classes, or no two classes, are detected together.

    Examples
    --------
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
            f"top_k={top_k}, but there are scores of {n_classes} class(es): with all "
            f"of them detected nothing is told apart. Give at most {most} or 'auto'."
        )
    if source.endswith("codetection") and int(top_k) == 1 and n_classes > 1:
        raise ValueError(
            "top_k=1 leaves no two classes detected together: co-detections need a "
            "top_k of at least 2."
        )
    return int(top_k)


def resolve_n_clusters(n_clusters: int | str, n_classes: int, n_connected: int) -> int:
    """Return the number of groups: the given one, checked, or at most the paper's 6.

    Parameters
    ----------
    n_clusters : int or "auto"
        What was asked for.
    n_classes : int
        The number of classes.
    n_connected : int
        How many of them share a detection with another.

    Returns
    -------
    n_clusters : int
        In [1, max(1, n_connected)].

    Raises
    ------
    ValueError
        If there are fewer connected classes than groups asked for.

    Examples
    --------
    >>> [resolve_n_clusters("auto", n, n) for n in (1, 2, 5, 10, 100)]
    [1, 1, 2, 5, 6]
    """
    if n_clusters == "auto":
        return max(1, min(6, n_classes // 2, n_connected))
    if int(n_clusters) > max(1, n_connected):
        raise ValueError(
            f"n_clusters={n_clusters}, but only {n_connected} of the {n_classes} "
            "class(es) share a detection with another class: ask for at most "
            f"{max(1, n_connected)} groups, raise top_k or give more held-out samples."
        )
    return int(n_clusters)
