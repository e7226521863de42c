"""Statistics as LeRobot keeps them beside a dataset: min, max, mean, std and count, for each episode and for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_PICTURE_STRIDE = 10
_PIXEL_STRIDE = 4


@dataclass(frozen=True)
class Statistics:
    """Of `count` rows, for each of `D` numbers: float64 `[D]`; for pictures, each colour in [0, 1], `D = 3`."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    count: int

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> Statistics:
        """Of numbers `[N, D]`."""
        values = rows.astype(np.float64)
        return cls(values.min(0), values.max(0), values.mean(0), values.std(0), len(values))

    def merged(self, other: Statistics) -> Statistics:
        """Of both together.

        >>> a, b = np.array([[1.0], [2.0]]), np.array([[6.0]])
        >>> both = Statistics.of_rows(a).merged(Statistics.of_rows(b))
        >>> both.mean.tolist(), np.allclose(both.std, np.vstack([a, b]).std()), both.count
        ([3.0], True, 3)
        """
        count = self.count + other.count
        share = other.count / count
        mean = self.mean + share * (other.mean - self.mean)
        variance = (1 - share) * (self.std**2 + (self.mean - mean) ** 2)
        variance += share * (other.std**2 + (other.mean - mean) ** 2)
        return Statistics(
            np.minimum(self.min, other.min), np.maximum(self.max, other.max), mean, np.sqrt(variance), count
        )

    def to_json(self, picture: bool = False) -> dict[str, Any]:
        """Plain lists; those of pictures have the shape `[3, 1, 1]`."""
        shape = (3, 1, 1) if picture else (-1,)
        values: dict[str, Any] = {
            name: getattr(self, name).reshape(shape).tolist() for name in ("min", "max", "mean", "std")
        }
        return values | {"count": [self.count]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Statistics:
        """Reads what `to_json` gave."""
        least, most, mean, std = (np.array(values[name], float).reshape(-1) for name in ("min", "max", "mean", "std"))
        return cls(least, most, mean, std, int(values["count"][0]))


class PictureStatistics:
    """Collects statistics of an episode's pictures, of every 4th pixel.

    Args:
        stride: Of every so many-th picture, from the first.
    """

    def __init__(self, stride: int = _PICTURE_STRIDE) -> None:
        self._stride, self._num_pictures = stride, 0
        self._merged: Statistics | None = None

    def add(self, picture: np.ndarray) -> None:
        """Adds a picture uint8 `[H, W, 3]`."""
        if self._num_pictures % self._stride == 0:
            pixels = picture[::_PIXEL_STRIDE, ::_PIXEL_STRIDE].reshape(-1, 3) / 255.0
            of_picture = Statistics.of_rows(pixels)
            self._merged = self._merged.merged(of_picture) if self._merged else of_picture
        self._num_pictures += 1

    def finish(self) -> Statistics:
        """Returns them; `count` is the number of pictures looked at, as in LeRobot."""
        assert self._merged is not None, "at least one picture"
        looked_at = -(-self._num_pictures // self._stride)
        return Statistics(self._merged.min, self._merged.max, self._merged.mean, self._merged.std, looked_at)
