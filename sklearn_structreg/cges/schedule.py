"""How the balance of group and exclusive sparsity changes from layer to layer."""


def mu_schedule(n_layers: int, exclusivity: float) -> tuple[float, ...]:
    """Weight of the exclusive term at each penalised layer.

    Parameters
    ----------
    n_layers : int
        Number L of penalised layers, at least 1.
    exclusivity : float
        The weight m at the lowest layer, in [0, 1]; the top layer has 1 - m.

    Returns
    -------
    tuple of float
        ``mu[l] = m + (1 - 2 * m) * l / (L - 1)`` in [0, 1] for the layers l = 0, ...,
        L - 1 in forward order.

    Raises
    ------
    ValueError
        If `n_layers` is below 1 or `exclusivity` outside [0, 1].

    Notes
    -----
    Section 3.2 of [1]_: lower layers share their features, the top layer lets its
    units compete for them. A single layer has no such schedule and is a top layer, so
    its weight is 1 - m.

    References
    ----------
    .. [1] J. Yoon, "Combined Group and Exclusive Sparsity for Deep Neural Networks",
       Master's thesis, UNIST, 2018.

    Examples
    --------
    >>> from sklearn_structreg.cges.schedule import mu_schedule
    >>> mu_schedule(3, exclusivity=0.25)
    (0.25, 0.5, 0.75)
    >>> mu_schedule(1, exclusivity=0.25)
    (0.75,)
    """
    if n_layers < 1:
        raise ValueError(f"n_layers must be at least 1; got {n_layers}.")
    if not 0.0 <= exclusivity <= 1.0:
        raise ValueError(f"exclusivity must lie in [0, 1]; got {exclusivity}.")
    if n_layers == 1:
        return (1.0 - exclusivity,)
    heights = (layer / (n_layers - 1) for layer in range(n_layers))
    # A mean of the two ends hits both exactly.
    return tuple((1.0 - h) * exclusivity + h * (1.0 - exclusivity) for h in heights)
