"""Features kept on a worker's disk: with fixed noise and a frozen video model those of a frame never change.

For small sets. The file is of the worker and goes with it; what a crash loses is computed again.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from schemas.errors import UsageError

_log = logging.getLogger(__name__)


class FeatureCache:
    """Features float16 of each window, filled as windows are drawn.

    Args:
        rows: Those of the windows that may be asked for.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = np.unique(rows)
        self._is_there = np.zeros(len(self._rows), bool)
        self._values: np.ndarray | None = None

    def get(self, rows: np.ndarray, compute: Callable[[Sequence[int]], torch.Tensor]) -> torch.Tensor:
        """Features `[b, T, N, C]`, float32 on the CPU if all were there.

        Args:
            rows: The windows `[b]`.
            compute: Features of those at some places of `rows`.

        Raises:
            UsageError: At the first call, if the disk has no room for all.
        """
        places = np.searchsorted(self._rows, rows)
        missing = np.flatnonzero(~self._is_there[places]).tolist()
        if missing:
            began = time.monotonic()
            computed = compute(missing).to("cpu", torch.float16)
            if self._values is None:
                self._values = self._open(computed, (time.monotonic() - began) / len(missing))
            self._values[places[missing]] = computed.numpy()
            self._is_there[places[missing]] = True
        assert self._values is not None
        return torch.from_numpy(self._values[places]).float()

    def _open(self, computed: torch.Tensor, seconds_each: float) -> np.ndarray:
        """Makes room, and says how much it takes and what it saves."""
        shape = (len(self._rows), *computed.shape[1:])
        num_bytes = int(np.prod(shape, dtype=np.int64)) * 2
        folder = tempfile.gettempdir()
        found = shutil.disk_usage(folder).free
        _log.info(
            "feature cache: %d windows of %.1f MB take %.2f GB of the %.1f GB free in %s; computing one takes %.3f s, "
            "once instead of once an epoch",
            len(self._rows), num_bytes / len(self._rows) / 1e6, num_bytes / 1e9, found / 1e9, folder, seconds_each,
        )  # fmt: skip
        if num_bytes > found:
            raise UsageError(
                f"--cache-features: expected {num_bytes / 1e9:.1f} GB of free disk in {folder} for {len(self._rows)} "
                f"windows, found {found / 1e9:.1f} GB; set TMPDIR to a larger disk or leave the option out"
            )
        with tempfile.TemporaryFile(prefix="vpp-features-") as file:  # without a name: gone with the process
            file.truncate(num_bytes)
            return np.memmap(file, np.float16, "r+", shape=shape)
