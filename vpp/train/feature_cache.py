"""Features kept on a disk: with fixed noise and a frozen video model those of a frame never change.

For small sets. The workers of a machine share one file, which has room for every window and holds what was computed,
and one with a byte for each window that tells what is there. A worker that dies between the two leaves a window that is
computed again; two that compute the same one write the same.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from schemas.errors import UsageError

_log = logging.getLogger(__name__)


class FeatureCache:
    """Features float16 of each window, filled as windows are drawn.

    Args:
        folder: Where it lies; made where it is not there.
        key: Names everything that features depend on beside the window.
        num_windows: Windows of the data.
        num_used: How many of them will be asked for.
    """

    def __init__(self, folder: str, key: str, num_windows: int, num_used: int) -> None:
        self._folder, self._key, self._num_used = Path(folder), key, num_used
        self._folder.mkdir(parents=True, exist_ok=True)
        self._is_there = self._mapped("there", np.uint8, (num_windows,))
        self._values: np.memmap | None = None

    def get(self, rows: np.ndarray, compute: Callable[[Sequence[int]], torch.Tensor]) -> torch.Tensor:
        """Features `[b, T, N, C]`, float32 on the CPU.

        Args:
            rows: The windows `[b]`.
            compute: Features of those at some places of `rows`.

        Raises:
            UsageError: At the first call, if the disk has no room for all.
        """
        missing = np.flatnonzero(self._is_there[rows] == 0).tolist()
        began = time.monotonic()
        if missing or self._values is None:
            computed = compute(missing or [0]).to("cpu", torch.float16)
            if self._values is None:
                self._values = self._open(computed.shape[1:], (time.monotonic() - began) / len(computed))
            if missing:
                self._values[rows[missing]] = computed.numpy()
                self._is_there[rows[missing]] = 1
        return torch.from_numpy(self._values[rows]).float()

    def _open(self, shape: Sequence[int], seconds_each: float) -> np.memmap:
        """Makes room, and says how much it takes and what it saves."""
        num_done = int(np.count_nonzero(self._is_there))
        num_bytes_each = 2 * int(np.prod(shape, dtype=np.int64))
        needed, free = max(0, self._num_used - num_done) * num_bytes_each, shutil.disk_usage(self._folder).free
        _log.info(
            "feature cache: %d windows of %.2f MB, of which %d are there, take %.2f GB of the %.1f GB free in %s; "
            "computing one takes %.3f s, once instead of once an epoch",
            self._num_used, num_bytes_each / 1e6, num_done, needed / 1e9, free / 1e9, self._folder, seconds_each,
        )  # fmt: skip
        if needed > free:
            raise UsageError(
                f"--cache-features: expected {needed / 1e9:.1f} GB of free disk in {self._folder} for {self._num_used} "
                f"windows, found {free / 1e9:.1f} GB; set --feature-folder to a larger disk or --no-cache-features"
            )
        return self._mapped("f16", np.float16, (len(self._is_there), *shape))

    def _mapped(self, ending: str, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        path = self._folder / f"{self._key}.{ending}"
        with path.open("ab") as file:  # takes no room before it is written to
            file.truncate(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        return np.memmap(path, dtype, "r+", shape=shape)
