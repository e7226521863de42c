"""Writes checkpoints beside the training, through a store's faults, and removes those that nobody needs any more.

One writer a run: the process that has the whole state. The layout is told in `checkpoint.py`. For a remote store each
file is first staged in the folder for temporary files (`TMPDIR`), which needs room for the largest.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any

import torch

from schemas.errors import UsageError, VPPError
from schemas.storage import join, remove_file, remove_folder, write_bytes, write_file
from schemas.store_faults import retry_passing_faults
from vpp.train.checkpoint import checkpoint_url, find_checkpoints, rank_by_metric, step_folders
from vpp.train.checkpoint_format import (
    COMPLETE_FILE,
    STATE_FILE,
    TENSOR_SUFFIX,
    CheckpointInfo,
    StoredFile,
    completion_bytes,
    state_bytes,
)
from vpp.train.safetensors_stream import check_storable, write_safetensors

_GROUP = re.compile(r"[A-Za-z0-9_-]+")
_log = logging.getLogger(__name__)


class CheckpointSaveError(VPPError):
    """A checkpoint that could not be stored; those before it are as they were."""


class CheckpointWriter:
    """Saves checkpoints in a background thread, one at a time; use it in a `with` block.

    A step that is there already is replaced: only reading all of it would tell whether it is sound, and it may be just
    the one that could not be read and made the run go back. Its `complete.json` is removed first.

    Args:
        run_url: The run's folder.
        keep_last: How many of the newest checkpoints stay.
        keep_best: How many of the best by `best_metric` stay besides.
        best_metric: Name in `metrics`; checkpoints without a finite value are never best.
        lower_is_better: Whether the best value is the lowest.
        retry_for_s: For how long each request is done again when the store has passing faults.

    Raises:
        UsageError: If a number is out of range.
    """

    def __init__(
        self,
        run_url: str,
        keep_last: int = 3,
        keep_best: int = 1,
        best_metric: str = "val/loss",
        lower_is_better: bool = True,
        retry_for_s: float = 300.0,
    ) -> None:
        if keep_last < 1 or keep_best < 0:
            raise UsageError(f"expected keep_last >= 1 and keep_best >= 0, found {keep_last} and {keep_best}")
        self._run_url = run_url
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._best_metric = best_metric
        self._lower_is_better = lower_is_better
        self._retry_for_s = retry_for_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None
        self._saved_at = time.monotonic()

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, torch.Tensor]],
        state: Mapping[str, Any],
        metrics: Mapping[str, float],
    ) -> float:
        """Begins to save a checkpoint, after the end of the one before, and returns how long it waited for that, in s.

        The caller must not change the tensors until the next `save`, `wait` or `close` has returned: hand over copies.
        They may be strided or share memory.

        Args:
            step: Optimiser steps done, at least 0.
            tensors: CPU tensors by group (one file each, such as `weights`, `ema`, `optimizer`) and name.
            state: Plain values: finite numbers, text, booleans, None, lists and dicts. They come back as JSON gives
                them: tuples as lists, keys as text.
            metrics: What was measured at this step.

        Raises:
            CheckpointSaveError: If the save before has failed; this one is then not begun.
            UsageError: If a value cannot be stored.
        """
        waited_s = self.wait()
        if step < 0 or not all(_GROUP.fullmatch(group) for group in tensors):
            raise UsageError(f"expected a step >= 0 and groups of letters, digits, _ and -, found {step} {[*tensors]}")
        for named in tensors.values():
            check_storable(named)
        try:
            encoded = state_bytes(step, metrics, state)
        except (TypeError, ValueError) as error:
            raise UsageError(f"expected plain values in the state of step {step}, found: {error}") from error
        frozen = {group: dict(named) for group, named in tensors.items()}
        self._running = self._thread.submit(self._save, step, frozen, encoded, dict(metrics))
        return waited_s

    def wait(self) -> float:
        """Waits until the save under way has ended; returns how long, in s.

        Raises:
            CheckpointSaveError: If it has failed. The error is told once.
        """
        running, self._running = self._running, None
        began = time.monotonic()
        if running is not None:
            running.result()
        return time.monotonic() - began

    def age_s(self) -> float:
        """Time since the newest checkpoint was complete, or since this writer began, in s."""
        return time.monotonic() - self._saved_at

    def close(self) -> None:
        """Waits for the save under way and ends the thread.

        Raises:
            CheckpointSaveError: If the save has failed.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except CheckpointSaveError as save_error:
            if error is None:
                raise
            _log.error("%s", save_error)  # and the block's own error goes on

    def _save(
        self,
        step: int,
        tensors: dict[str, dict[str, torch.Tensor]],
        state: bytes,
        metrics: dict[str, float],
    ) -> None:
        url = checkpoint_url(self._run_url, step)
        try:
            self._remove(url)
            files = {STATE_FILE: self._write_bytes(join(url, STATE_FILE), state)}
            for group, named in tensors.items():
                files[group + TENSOR_SUFFIX] = self._write_tensors(join(url, group + TENSOR_SUFFIX), named)
            self._write_bytes(join(url, COMPLETE_FILE), completion_bytes(step, metrics, files))
            self._saved_at = time.monotonic()
        except Exception as error:  # told to the caller, whatever it is
            raise CheckpointSaveError(
                f"checkpoint {url} could not be saved ({type(error).__name__}: {error}), passing faults were tried "
                f"again for {self._retry_for_s:g} s; earlier checkpoints are intact; look at the store, then run again"
            ) from error
        try:
            self._prune(step)
        except Exception as error:  # the checkpoint is there; the next pruning comes past the same folders
            _log.warning("old checkpoints of %s stay for now: %s: %s", self._run_url, type(error).__name__, error)

    def _write_bytes(self, url: str, data: bytes) -> StoredFile:
        write_bytes(url, data, self._retry_for_s)
        return StoredFile(len(data), hashlib.sha256(data).hexdigest())

    def _write_tensors(self, url: str, tensors: dict[str, torch.Tensor]) -> StoredFile:
        def write() -> StoredFile:
            with write_file(url, self._retry_for_s) as handle:
                sink = _HashingSink(handle)
                write_safetensors(sink, tensors)
            return StoredFile(sink.num_bytes, sink.sha256.hexdigest())

        return retry_passing_faults(write, f"writing {url}", self._retry_for_s)  # the disk may be full

    def _prune(self, step: int) -> None:
        """Removes what `select_kept` does not keep and, below the newest checkpoint, what is no checkpoint.

        Folders of higher steps belong to an attempt that the run has gone back from: they are replaced when it gets
        there, and until then count for nothing.
        """
        found, _ = find_checkpoints(self._run_url, retry_for_s=self._retry_for_s)
        reached = [info for info in found if info.step <= step]
        kept = select_kept(reached, self._keep_last, self._keep_best, self._best_metric, self._lower_is_better)
        for other, url in step_folders(self._run_url):
            if other < step and other not in kept:
                self._remove(url)

    def _remove(self, url: str) -> None:
        """Removes a folder, `complete.json` first, so that no half of a checkpoint looks whole."""

        def remove() -> None:
            remove_file(join(url, COMPLETE_FILE))
            remove_folder(url)

        retry_passing_faults(remove, f"removing {url}", self._retry_for_s)


def select_kept(
    infos: Iterable[CheckpointInfo], keep_last: int, keep_best: int, metric: str, lower_is_better: bool
) -> set[int]:
    """Steps that stay: the `keep_last` newest and the `keep_best` best by a metric.

    >>> infos = [CheckpointInfo(step, "", {"loss": loss}) for step, loss in [(1, 0.3), (2, 0.2), (3, 0.4), (4, 0.5)]]
    >>> sorted(select_kept(infos, keep_last=1, keep_best=1, metric="loss", lower_is_better=True))
    [2, 4]
    """
    ascending = sorted(infos, key=lambda info: info.step)
    best = rank_by_metric(ascending, metric, lower_is_better)
    return {info.step for info in [*ascending[-keep_last:], *best[:keep_best]]}


class _HashingSink:
    """Writes to a file and hashes what it writes."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        self._handle.write(data)
        self.sha256.update(data)
        self.num_bytes += len(data)
        return len(data)
