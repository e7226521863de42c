"""Confidence intervals of what an evaluation counts: Wilson's for success rates, Agresti and Coull's for averages."""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z = 1.959963984540054  # a standard normal variable lies within +-_Z with probability 0.95


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % of a success rate (Wilson 1927), honest for few episodes and rates of 0 and 1.

    Args:
        k: Successes.
        n: Attempts; with none, all that is known is that the rate lies between 0 and 1.

    Raises:
        ValueError: If not 0 <= k <= n.

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    >>> [round(end, 3) for end in wilson(20, 20)]
    [0.839, 1.0]
    >>> wilson(0, 0)
    (0.0, 1.0)
    """
    if not 0 <= k <= n:
        raise ValueError(f"expected 0 <= k <= n, found k {k}, n {n}")
    if n == 0:
        return 0.0, 1.0
    rate = k / n
    centre = rate + _Z**2 / (2 * n)
    half = _Z * math.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    low = 0.0 if k == 0 else (centre - half) / scale  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if k == n else (centre + half) / scale
    return low, high


def bounded_mean(values: Sequence[float], largest: float) -> tuple[float, float]:
    """Interval at 95 % of the mean of numbers in [0, largest].

    The normal interval after z^2 / 2 values at each end are added, as Agresti and Coull (1998) do for rates, so that
    few values, or values that are all the same, do not look like certainty. Of rates it is their interval.

    Args:
        values: Independent numbers; with none, all that is known is that the mean lies between 0 and `largest`.
        largest: Upper end of the range.

    >>> [round(end, 2) for end in bounded_mean([0, 0, 0, 0], 5)]
    [0.0, 2.73]
    >>> [round(end, 2) for end in bounded_mean([5, 5, 4, 1] * 250, 5)]
    [3.64, 3.85]
    """
    num_added = _Z**2 / 2
    n = len(values) + 2 * num_added
    mean = (sum(values) + num_added * largest) / n
    variance = (sum(value**2 for value in values) + num_added * largest**2) / n - mean**2
    half = _Z * math.sqrt(variance / n)
    return max(0.0, mean - half), min(float(largest), mean + half)
