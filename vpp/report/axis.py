"""An axis of a chart: where a value stands, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels.

    Attributes:
        low: The value at `start_px`.
        high: The value at `end_px`; above `low`.
        start_px: May be larger than `end_px`, as that of an upright axis is.
        end_px: Where it ends.
        is_log: Equal distances are equal ratios; values are above 0.

    >>> Axis(0, 10, 100, 200).place(5), round(Axis(1, 100, 0, 10, is_log=True).place(10), 6)
    (150.0, 5.0)
    """

    low: float
    high: float
    start_px: float
    end_px: float
    is_log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], start_px: float, end_px: float, is_log: bool = False) -> Axis:
        """The axis that just holds all values; around a single one it leaves room."""
        known = list(values) or [1.0]
        low, high = min(known), max(known)
        if is_log:
            low, high = (low / 1.5, high * 1.5) if high / low < 1.1 else (low / 1.05, high * 1.05)
        elif low == high:
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        return cls(low, high, start_px, end_px, is_log)

    def place(self, value: float) -> float:
        """Pixels of a value."""
        low, high, at = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.start_px + (at - low) / (high - low) * (self.end_px - self.start_px)

    def ticks(self, number: int = 5) -> list[float]:
        """About so many round values.

        >>> Axis(0, 1, 0, 1).ticks()
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> Axis(0.02, 3, 0, 1, is_log=True).ticks()
        [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
        >>> Axis(0.5, 20000, 0, 1, is_log=True).ticks()
        [1.0, 10.0, 100.0, 1000.0, 10000.0]
        """
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1,), (1, 2, 5), (1, 2, 3, 5, 7), range(1, 10)):
                every = max(1, round(len(decades) / number)) if factors == (1,) else 1
                found = [float(f"{factor}e{decade}") for decade in decades[::every] for factor in factors]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) >= 3:
                    return found
        raw = (self.high - self.low) / number
        size = 10 ** math.floor(math.log10(raw))
        step = size * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * size / raw)))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{count * step:.10g}") for count in range(first, last + 1)]
