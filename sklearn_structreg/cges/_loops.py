"""The operators on groups as plain loops, written for numba to compile.

On small layers the calls of torch functions take longer than their arithmetic, on large
ones their temporaries do; these loops have neither. They agree with the torch path up
to rounding; all their sums are in double precision.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Columns are shrunk in blocks of about this many weights, which stay in the cache from
# pass to pass. Reading along rows is slow below the smallest number of columns.
_BLOCK_SIZE = 2**16
_MIN_COLUMNS = 64

MAX_STEPS = 100  # of Newton's method in a metric, which needs three to ten


def shrink_columns(
    w: NDArray[Any], threshold: float, inverse: float, divisor: float, n_passes: int
) -> None:
    """Shrink each column of `w` in place, by the group and the exclusive operator."""
    # The exclusive threshold tau starts as the 1-norm over `divisor`. For the exact
    # operator of strength 1 / inverse, Newton's method raises it to the root of the
    # equation in `exclusive_threshold`: at least as fast as the fixed-point passes that
    # `n_chord_passes` counts, so that `n_passes` steps suffice. If a step leaves the
    # number of active members (magnitudes above tau) as it was, tau is the root.
    zero = w.dtype.type(0.0)
    n_members, n_columns = w.shape
    width = min(n_columns, max(_MIN_COLUMNS, _BLOCK_SIZE // n_members))
    tau, factor = np.empty(width), np.empty(width)
    total, n_active, n_before = np.empty(width), np.empty(width), np.empty(width)
    for start in range(0, n_columns, width):
        stop = min(start + width, n_columns)
        tau[:], factor[:], n_before[:] = 0.0, 0.0, n_members
        for i in range(n_members):
            row = w[i, start:stop]
            for j in range(row.size):
                x = np.float64(row[j])
                tau[j] += abs(x)
                factor[j] += x * x
        for j in range(stop - start):
            norm = math.sqrt(factor[j])
            factor[j] = 0.0 if norm <= threshold else 1.0 - threshold / norm
            tau[j] = tau[j] / divisor if divisor < np.inf else 0.0
        for _ in range(n_passes):
            total[:], n_active[:] = 0.0, 0.0
            for i in range(n_members):
                row = w[i, start:stop]
                for j in range(row.size):
                    magnitude = abs(np.float64(row[j]))
                    total[j] += magnitude if magnitude > tau[j] else 0.0
                    n_active[j] += 1.0 if magnitude > tau[j] else 0.0
            changed = False
            for j in range(stop - start):
                raised = total[j] / (inverse + n_active[j])
                tau[j] = raised if raised > tau[j] else tau[j]
                changed |= n_active[j] != n_before[j]
                n_before[j] = n_active[j]
            if not changed:
                break
        for i in range(n_members):
            row = w[i, start:stop]
            for j in range(row.size):
                excess = abs(np.float64(row[j])) - tau[j]
                # Rounding before the sign, by a difference, makes all zeros positive.
                x = w.dtype.type((0.0 if excess < 0.0 else excess) * factor[j])
                row[j] = x if row[j] > zero else zero - x


def shrink_rows(
    w: NDArray[Any], threshold: float, inverse: float, divisor: float, n_passes: int
) -> None:
    """Shrink each row of `w` in place, in the same way as `shrink_columns`."""
    zero = w.dtype.type(0.0)
    n_rows, n_members = w.shape
    for i in range(n_rows):
        row = w[i]
        tau = squares = 0.0
        for j in range(n_members):
            x = np.float64(row[j])
            tau += abs(x)
            squares += x * x
        norm = math.sqrt(squares)
        factor = 0.0 if norm <= threshold else 1.0 - threshold / norm
        tau = tau / divisor if divisor < np.inf else 0.0
        n_before = float(n_members)
        for _ in range(n_passes):
            total = n_active = 0.0
            for j in range(n_members):
                magnitude = abs(np.float64(row[j]))
                total += magnitude if magnitude > tau else 0.0
                n_active += 1.0 if magnitude > tau else 0.0
            raised = total / (inverse + n_active)
            tau = raised if raised > tau else tau
            if n_active == n_before:
                break
            n_before = n_active
        for j in range(n_members):
            excess = abs(np.float64(row[j])) - tau
            y = w.dtype.type((0.0 if excess < 0.0 else excess) * factor)
            row[j] = y if row[j] > zero else zero - y


def shrink_matrices_in_metric(
    w: NDArray[Any],
    metric: NDArray[Any],
    thresholds: NDArray[np.float64],
    strengths: NDArray[np.float64],
    exact: bool,
    precision: float,
) -> None:
    """Shrink the columns of several matrices in place, each by its own strengths."""
    for k in range(len(w)):
        shrink_in_metric(w[k], metric[k], thresholds[k], strengths[k], exact, precision)


def shrink_in_metric(
    w: NDArray[Any],
    metric: NDArray[Any],
    threshold: float,
    strength: float,
    exact: bool,
    precision: float,
) -> None:
    """Shrink each column in place, by the exclusive and the group operator.

    The same steps as in `_metric`, on a copy of one group at a time.
    """
    n_members, n_columns = w.shape
    y, rate, shift = np.empty(n_members), np.empty(n_members), np.empty(n_members)
    for j in range(n_columns):
        tau = size = 0.0
        for i in range(n_members):
            y[i] = abs(np.float64(w[i, j]))
            rate[i] = 1.0 / np.float64(metric[i, j])
            tau += y[i]
        if strength > 0.0:
            if exact:
                tau, n_before = 0.0, -1
                for _ in range(n_members + 1):
                    total = rates = 0.0
                    n_active = 0
                    for i in range(n_members):
                        active = y[i] > tau * strength * rate[i]
                        total += y[i] if active else 0.0
                        rates += rate[i] if active else 0.0
                        n_active += active
                    if n_active == n_before:
                        break
                    raised = total / (1.0 + strength * rates)
                    tau, n_before = max(tau, raised), n_active
            for i in range(n_members):
                y[i] = max(0.0, y[i] - tau * strength * rate[i])
        norm = 0.0
        if threshold > 0.0:
            mean = squares = 0.0
            for i in range(n_members):
                shift[i] = threshold * rate[i]
                size += y[i] * y[i]
                mean += y[i] * y[i] * shift[i]
                squares += (y[i] / shift[i]) ** 2
            if size > 0.0:
                norm = max(0.0, math.sqrt(size) - mean / size)
            for _ in range(MAX_STEPS if squares > 1.0 else 0):
                squares = cubes = 0.0
                for i in range(n_members):
                    scaled = y[i] / (norm + shift[i])
                    squares += scaled * scaled
                    cubes += scaled * scaled / (norm + shift[i])
                step = (math.sqrt(squares) - 1.0) * squares / cubes
                norm += max(0.0, step)
                if step <= precision * norm:
                    break
        for i in range(n_members):
            if threshold > 0.0:
                y[i] *= norm / (norm + shift[i])
            x = w.dtype.type(y[i])
            w[i, j] = x if w[i, j] > 0 else w.dtype.type(0.0) - x
