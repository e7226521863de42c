"""A torch file makes nothing but tensors, and none that is larger than the file."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import EFFORTS, mutants, survives

from pipelines.sources.vpp_layout import _read_latents
from schemas.errors import DataError, UsageError
from schemas.torch_file import check_torch_file
from vpp.policy.import_official import read_official


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def packed(pickled: bytes, compression: int = zipfile.ZIP_STORED, **others: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", **others}.items():
            archive.writestr(f"a/{name}", content)
    return buffer.getvalue()


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


HOSTILE = {
    "code": (saved(RunsCode()), "posix mkdir"),
    "a bytearray of any size": (
        packed(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R."),
        "bytearray",
    ),
    "a name from the stack": (packed(pickle.dumps(RunsCode(), 4)), "STACK_GLOBAL"),
    "compressed zeros": (packed(b"N.", zipfile.ZIP_DEFLATED, data=bytes(10_000_000)), "compressed"),
    "a sparse tensor": (saved(torch.zeros(3).to_sparse()), "_rebuild_sparse_tensor"),
    "the format before torch 1.6": (saved(torch.zeros(2), _use_new_zipfile_serialization=False), "since torch 1.6"),
    "two pickles": (packed(b"N.", **{"b/data.pkl": b"N."}), "decode_error"),
    "no zip": (b"hello", "decode_error"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_tensor_never_reaches_torch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, told = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has read it"))
    with pytest.raises(DataError, match=told):
        check_torch_file(io.BytesIO(content), "x.pt")
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(DataError):
        _read_latents(str(tmp_path / "x.pt"), 2)
    with pytest.raises(UsageError):
        read_official(str(tmp_path / "x.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value", [torch.zeros(2), torch.nn.Parameter(torch.zeros(2)), {"model": torch.nn.Linear(2, 2).state_dict()}]
)
def test_what_training_saves_passes(value: Any) -> None:
    handle = io.BytesIO(saved(value))
    check_torch_file(handle, "x.pt")
    assert handle.tell() == 0


def test_one_number_does_not_pass_for_a_million(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(saved(torch.zeros(1).expand(100, 4, 32, 32)))
    with pytest.raises(DataError, match="latents_not_aligned"):
        _read_latents(str(path), 100)
    path.write_bytes(saved({"model": {"a": torch.zeros(1).expand(10**6, 10**6)}}))
    with pytest.raises(UsageError, match="larger than what is stored"):
        read_official(str(path))


@EFFORTS
def test_any_torch_file_reads_or_is_one_line(tmp_path: Path, effort: int) -> None:
    path = tmp_path / "x.pt"

    def latents(content: bytes) -> None:
        path.write_bytes(content)
        _read_latents(str(path), 1)

    def official(content: bytes) -> None:
        path.write_bytes(content)
        read_official(str(path))

    survives(latents, mutants(saved(torch.zeros(1, 4, 32, 32))), effort)
    survives(official, mutants(saved({"model": {"a": torch.zeros(2), "b": torch.zeros(3, 2)}})), effort)
