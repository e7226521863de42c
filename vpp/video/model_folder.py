"""Model folders on any storage: diffusers reads and writes local folders, this module carries them to and from URLs.

A folder is a model once `model_index.json` is there. It is written last, so a model is complete or absent.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial

from fsspec.implementations.local import LocalFileSystem
from huggingface_hub import snapshot_download

from schemas import storage
from schemas.errors import UsageError
from schemas.store_faults import retry_passing_faults

_RETRY_S = 300.0

INDEX = "model_index.json"
"""diffusers' description of a pipeline, and the mark that its folder is complete."""


def find_model(name: str) -> str:
    """The model's folder of a name that may also be a run of jobs/stage1.py."""
    is_run = not storage.exists(storage.join(name, INDEX)) and storage.exists(storage.join(name, "model", INDEX))
    return storage.join(name, "model") if is_run else name


def loadable_name(recorded: str) -> str:
    """A name that can be loaded: without the revision or the remark that recorded names carry.

    >>> loadable_name("openai/clip@0123456789ab"), loadable_name("tiny (random CLIP, seed 0)")
    ('openai/clip', 'tiny')
    """
    return re.sub(r"@[0-9a-f]{12}$| \(.*\)$", "", recorded)


@contextlib.contextmanager
def local_copy(name: str, *parts: str) -> Iterator[str]:
    """A model as diffusers opens it: a local folder or hub id as it is, of a URL a copy for the time of the block.

    Tensors that are mapped from the copy outlive it: the disk space is given back when they are.

    Args:
        name: Folder, URL of a folder, or hub id.
        parts: Files and folders below it that are needed, such as `unet`.

    Raises:
        UsageError: If a folder holds no complete model.
    """
    if "://" not in name and not os.path.isdir(name):
        yield name
        return
    if not storage.exists(storage.join(name, INDEX)):
        raise UsageError(
            f"video model {name}: expected the folder of a diffusers pipeline, found no {INDEX} in it; "
            "name such a folder, a URL of one, or a hub id"
        )
    fs, path = storage.filesystem(name)
    if isinstance(fs, LocalFileSystem):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vpp-model-") as folder:
        for file in storage.list_files(name):
            if file.split("/")[0] in parts:
                target = os.path.join(folder, file)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                _retry(partial(fs.get_file, storage.join(path, file), target), f"reading {name}")
        yield folder


def downloaded(name: str, part: str) -> str:
    """A local folder with a part of a model, such as `unet`: that of a hub id is downloaded, safetensors only.

    Raises:
        OSError: If the hub has no such model.
        ValueError: If the name is no hub id.
    """
    return (
        name
        if os.path.isdir(name)
        else snapshot_download(name, allow_patterns=[f"{part}/*.json", f"{part}/*.safetensors"])
    )


@contextlib.contextmanager
def published(url: str) -> Iterator[str]:
    """An empty local folder whose files become the model at `url` when the block ends, and not at all if it raises.

    A model that is there already is replaced. The folder lies beside a local `url`, so that nothing is copied.
    """
    fs, path = storage.filesystem(url)
    is_local = isinstance(fs, LocalFileSystem)
    beside = os.path.dirname(path.rstrip("/")) if is_local else None
    prefix = f".{os.path.basename(path.rstrip('/'))}{storage.PARTIAL_MARK}"
    if beside:
        os.makedirs(beside, exist_ok=True)
        for left_over in [name for name in os.listdir(beside) if name.startswith(prefix)]:
            shutil.rmtree(os.path.join(beside, left_over), ignore_errors=True)  # of a writer that was killed
    with tempfile.TemporaryDirectory(prefix=prefix, dir=beside) as folder:
        yield folder
        files = [os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names]
        files.sort(key=lambda file: (file == INDEX, file))
        _withdraw(url, keep=set(files))
        for file in files:
            staged, target = os.path.join(folder, file), storage.join(path, file)
            if is_local:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(staged, target)
            else:
                _retry(partial(fs.put_file, staged, target), f"writing {url}")


def _withdraw(url: str, keep: set[str]) -> None:
    """Takes the mark from a model and removes its files that the next one will not overwrite."""
    fs, path = storage.filesystem(url)
    components = {file.split("/")[0] for file in keep if "/" in file}
    found = storage.list_files(url)
    stale = [file for file in found if file.split("/")[0] in components and file not in keep]
    for file in [name for name in found if name == INDEX] + stale:
        fs.rm_file(storage.join(path, file))


def _retry(action: Callable[[], object], doing: str) -> None:
    retry_passing_faults(action, doing, _RETRY_S)


def variant(folder: str, subfolder: str = "unet") -> dict[str, str]:
    """A folder may hold half-precision weights only, under diffusers' name for them."""
    files = os.listdir(os.path.join(folder, subfolder)) if os.path.isdir(os.path.join(folder, subfolder)) else []
    weights = [file for file in files if ".safetensors" in file]
    return {"variant": "fp16"} if weights and all(".fp16" in file for file in weights) else {}


def first_line(error: Exception) -> str:
    """The first line of what an error says, for messages of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
