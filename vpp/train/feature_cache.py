"""Features kept on a disk: with fixed noise and a frozen video model those of a frame never change.

For small sets. The workers of a machine share one file, which has room for every window and holds what was computed,
and one with a byte for each window that tells what is there. A worker that dies between the two leaves a window that is
computed again; two that compute the same one write the same.
"""

from __future__ import annotations

import logging
import math
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
        shape: Of the features of all windows of the data, `[windows, T, N, C]`.
        num_used: How many of the windows will be asked for.

    Raises:
        UsageError: If the disk has no room for those that are missing.
    """

    def __init__(self, folder: str, key: str, shape: tuple[int, int, int, int], num_used: int) -> None:
        self._folder, self._key = Path(folder), key
        self._folder.mkdir(parents=True, exist_ok=True)
        self._is_there = self._mapped("there", np.uint8, shape[:1])
        self._values = self._mapped("f16", np.float16, shape)
        self._has_told = False
        num_bytes, num_done = 2 * math.prod(shape[1:]), int(np.count_nonzero(self._is_there))
        needed, free = max(0, num_used - num_done) * num_bytes, shutil.disk_usage(self._folder).free
        _log.info(
            "feature cache: %d windows of %.2f MB, of which %d are there; takes %.2f GB of the %.1f GB free in %s",
            num_used, num_bytes / 1e6, num_done, needed / 1e9, free / 1e9, self._folder,
        )  # fmt: skip
        if needed > free:
            raise UsageError(
                f"--cache-features: expected {needed / 1e9:.1f} GB of free disk in {self._folder} for {num_used} "
                f"windows, found {free / 1e9:.1f} GB; set --feature-folder to a larger disk or --no-cache-features"
            )

    def get(self, rows: np.ndarray, compute: Callable[[Sequence[int]], torch.Tensor]) -> torch.Tensor:
        """Features `[b, T, N, C]`, float32 on the CPU.

        Args:
            rows: The windows `[b]`.
            compute: Features of those at some places of `rows`.
        """
        missing = np.flatnonzero(self._is_there[rows] == 0).tolist()
        if missing:
            began = time.monotonic()
            self._values[rows[missing]] = compute(missing).to("cpu", torch.float16).numpy()
            self._is_there[rows[missing]] = 1
            if not self._has_told:
                seconds = (time.monotonic() - began) / len(missing)
                _log.info("feature cache: computing a window takes %.3f s, once instead of once an epoch", seconds)
                self._has_told = True
        return torch.from_numpy(self._values[rows]).float()

    def _mapped(self, ending: str, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        path = self._folder / f"{self._key}.{ending}"
        with path.open("ab") as file:  # takes no room before it is written to
            file.truncate(math.prod(shape) * np.dtype(dtype).itemsize)
        return np.memmap(path, dtype, "r+", shape=shape)
