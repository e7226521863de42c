"""Finds and reads training checkpoints: complete or absent, on any store, with nothing but JSON and safetensors.

<run>/checkpoints/step_00001000/<group>.safetensors   tensors by name, such as weights, ema, optimizer
<run>/checkpoints/step_00001000/state.json            format, step, metrics, and the run's plain values
<run>/checkpoints/step_00001000/complete.json         written last: size and SHA-256 of every other file

A folder without a valid `complete.json` is no checkpoint. Ray Train's own upload copies a folder file by file and
trusts it; hence this store, which also opens without Ray. `checkpoint_writer.py` writes it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from schemas.errors import DataError, UsageError
from schemas.storage import join, list_names, list_sizes, local_copy, read_bytes
from schemas.store_faults import retry_passing_faults
from vpp.train.checkpoint_format import (
    COMPLETE_FILE,
    STATE_FILE,
    TENSOR_SUFFIX,
    CheckpointInfo,
    StoredFile,
    parse_completion,
    parse_state,
    unreadable,
)

_STEP_FOLDER = re.compile(r"step_(\d{8,})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SkippedCheckpoint:
    """A folder that looks like a checkpoint and is none, and why."""

    url: str
    reason: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read.

    Attributes:
        info: Which one.
        tensors: Tensors by group and name, on the CPU. They are mapped from the file: changing them changes no file.
        state: The plain values that the run stored.
    """

    info: CheckpointInfo
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


def checkpoints_folder(run_url: str) -> str:
    """Folder of a run's checkpoints."""
    return join(run_url, "checkpoints")


def checkpoint_url(run_url: str, step: int) -> str:
    """Folder of one checkpoint.

    >>> checkpoint_url("s3://bucket/run", 1000)
    's3://bucket/run/checkpoints/step_00001000'
    """
    return join(checkpoints_folder(run_url), f"step_{step:08d}")


def step_folders(run_url: str) -> list[tuple[int, str]]:
    """Step and URL of every folder that a checkpoint of the run may be in, ascending by step."""
    folder = checkpoints_folder(run_url)
    matches = [_STEP_FOLDER.fullmatch(name) for name in list_names(folder)]
    return sorted((int(match[1]), join(folder, match[0])) for match in matches if match)


def find_checkpoints(
    run_url: str, verify: bool = False, retry_for_s: float = 60.0
) -> tuple[list[CheckpointInfo], list[SkippedCheckpoint]]:
    """Lists a run's complete checkpoints, ascending by step, and the folders that hold none, with reasons.

    Args:
        run_url: The run's folder.
        verify: Whether every byte is read and hashed; otherwise the sizes of all files are compared.
        retry_for_s: For how long the listing is begun again when the store has passing faults. A store that is away
            is never a reason to skip a checkpoint: its error is raised in the end.

    Raises:
        UsageError: If a checkpoint has another format than this version reads.
    """
    return retry_passing_faults(lambda: _find(run_url, verify), f"listing checkpoints of {run_url}", retry_for_s)


def _find(run_url: str, verify: bool) -> tuple[list[CheckpointInfo], list[SkippedCheckpoint]]:
    found: list[CheckpointInfo] = []
    skipped: list[SkippedCheckpoint] = []
    for step, url in step_folders(run_url):
        sizes = list_sizes(url)
        if not sizes:  # some stores keep the folder of removed objects for a while
            continue
        try:
            info, files = _read_completion(url, step)
            for name, file in files.items():
                _check_size(join(url, name), sizes.get(name), file.num_bytes)
            if verify:
                read_checkpoint(info, retry_for_s=0)
        except DataError as error:
            skipped.append(SkippedCheckpoint(url, error.detail))
        else:
            found.append(info)
    return found, skipped


def latest_checkpoint(run_url: str, retry_for_s: float = 60.0) -> CheckpointInfo | None:
    """The complete checkpoint of the highest step, by the sizes of its files; None if there is none.

    Each folder that is skipped is logged as a warning with its reason.

    Raises:
        UsageError: As `find_checkpoints`.
    """
    found = _found_with_warnings(run_url, retry_for_s)
    return found[-1] if found else None


def best_checkpoint(
    run_url: str, metric: str, lower_is_better: bool = True, retry_for_s: float = 60.0
) -> CheckpointInfo | None:
    """The complete checkpoint with the best finite value of a metric, the later one of equals; None if there is none.

    Raises:
        UsageError: As `find_checkpoints`.
    """
    ranked = rank_by_metric(_found_with_warnings(run_url, retry_for_s), metric, lower_is_better)
    return ranked[0] if ranked else None


def rank_by_metric(infos: Iterable[CheckpointInfo], metric: str, lower_is_better: bool) -> list[CheckpointInfo]:
    """Those that have a finite value of a metric, best first, the later one first among equals.

    >>> infos = [CheckpointInfo(step, "", {"loss": loss}) for step, loss in [(1, 0.3), (2, 0.2), (3, math.nan)]]
    >>> [info.step for info in rank_by_metric(infos, "loss", lower_is_better=True)]
    [2, 1]
    """
    measured = [info for info in infos if math.isfinite(info.metrics.get(metric, math.nan))]
    sign = 1 if lower_is_better else -1
    return sorted(measured, key=lambda info: (sign * info.metrics[metric], -info.step))


def read_latest_checkpoint(
    run_url: str, groups: Sequence[str] | None = None, retry_for_s: float = 60.0
) -> Checkpoint | None:
    """Reads the newest checkpoint whose every byte is as written; one that is not is logged and the one before taken.

    In a group of workers one of them does this and tells the others its `info`, so that all read the same.

    Args:
        run_url: The run's folder.
        groups: As for `read_checkpoint`; what is not read is not checked.
        retry_for_s: For how long each request is done again when the store has passing faults.

    Raises:
        UsageError: As `find_checkpoints` and `read_checkpoint`.
    """
    for info in reversed(_found_with_warnings(run_url, retry_for_s)):
        try:
            return read_checkpoint(info, groups, retry_for_s)
        except DataError as error:
            _warn_skipped(SkippedCheckpoint(info.url, error.detail))
    return None


def read_checkpoint(info: CheckpointInfo, groups: Sequence[str] | None = None, retry_for_s: float = 60.0) -> Checkpoint:
    """Reads a checkpoint and compares every byte with its SHA-256.

    Files on this machine are mapped into memory; remote ones are first copied to the folder for temporary files, in
    large pieces, one at a time, and the copy's space is free again when the tensors are. Nothing is held twice.

    Args:
        info: Which one.
        groups: Names of the tensor groups to read; None reads all.
        retry_for_s: For how long each request is done again when the store has passing faults.

    Raises:
        DataError: `unreadable_checkpoint` if a file is missing or differs from what was written.
        UsageError: If the checkpoint has no such group, or another format than this version reads.
    """
    stored, files = retry_passing_faults(
        lambda: _read_completion(info.url, info.step), f"reading {info.url}", retry_for_s
    )
    in_store = [name.removesuffix(TENSOR_SUFFIX) for name in files if name.endswith(TENSOR_SUFFIX)]
    wanted = list(in_store if groups is None else groups)
    if missing := sorted(set(wanted) - set(in_store)):
        raise UsageError(f"expected tensor groups {missing} in {info.url}, found {in_store}; ask for one of these")
    state = _read_state(stored, files, retry_for_s)
    tensors = {group: _read_tensors(info.url, group + TENSOR_SUFFIX, files, retry_for_s) for group in wanted}
    return Checkpoint(stored, tensors, state)


def _found_with_warnings(run_url: str, retry_for_s: float) -> list[CheckpointInfo]:
    found, skipped = find_checkpoints(run_url, retry_for_s=retry_for_s)
    for one in skipped:
        _warn_skipped(one)
    return found


def _warn_skipped(skipped: SkippedCheckpoint) -> None:
    _log.warning("checkpoint %s is skipped: %s", skipped.url, skipped.reason)


def _read_completion(url: str, step: int) -> tuple[CheckpointInfo, dict[str, StoredFile]]:
    where = join(url, COMPLETE_FILE)
    try:
        data = read_bytes(where)
    except FileNotFoundError:
        raise unreadable(f"expected {where}, which is written last, found none: the writing was cut short") from None
    return parse_completion(data, url, step)


def _check_size(url: str, found: int | None, expected: int) -> None:
    if found != expected:
        what = "no file" if found is None else f"{found} bytes"
        raise unreadable(f"expected {expected} bytes in {url}, found {what}")


@contextmanager
def _checked_file(folder: str, name: str, files: Mapping[str, StoredFile], retry_for_s: float) -> Iterator[str]:
    """A local path of a file whose every byte is as written: it is read once before anything in it is believed."""
    url = join(folder, name)
    try:
        with local_copy(url, retry_for_s) as path:
            with open(path, "rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
                _check_size(url, handle.tell(), files[name].num_bytes)
            if found != files[name].sha256:
                raise unreadable(f"expected SHA-256 {files[name].sha256} of {url}, found {found}")
            yield path
    except FileNotFoundError:
        raise unreadable(f"expected {url}, found no file") from None


def _read_state(info: CheckpointInfo, files: Mapping[str, StoredFile], retry_for_s: float) -> dict[str, Any]:
    with _checked_file(info.url, STATE_FILE, files, retry_for_s) as path, open(path, "rb") as handle:
        return parse_state(handle.read(), info)


def _read_tensors(
    folder: str, name: str, files: Mapping[str, StoredFile], retry_for_s: float
) -> dict[str, torch.Tensor]:
    with _checked_file(folder, name, files, retry_for_s) as path:
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise unreadable(f"expected a safetensors file in {join(folder, name)}, found: {error}") from error
