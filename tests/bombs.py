"""Small files that would become gigabytes; run as a script, it reads each where no more memory can be had than it is told.

    python tests/bombs.py FOLDER BYTES

prints a JSON object: `refused` for each bomb, or what else came of it.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from examples import picture
from layouts import write_calvin, write_ego4d
from small_dataset import clip_video, write_part

from pipelines.sources.calvin import Calvin
from pipelines.sources.ego4d import Ego4D
from pipelines.sources.lerobot_tables import open_parquet
from pipelines.sources.pictures import decode_image
from pipelines.sources.safe_pickle import load_pickled_npy
from pipelines.sources.vpp_layout import _read_latents
from pipelines.video_file import probe
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, VPPError
from schemas.parquet_memory import read_parquet
from vpp.data.manifest_reader import read_written
from vpp.data.npy_view import npy_view
from vpp.data.video_frames import decode_clip
from vpp.serve.protocol import unpack


def claiming(content: bytes, num_frames: int) -> bytes:
    """An MP4 whose tables say that it has so many frames of one byte."""
    changed = bytearray(content)
    for kind, place, numbers in (
        (b"stsz", 4, (1, num_frames)),
        (b"stts", 8, (num_frames,)),
        (b"stsc", 4, (1, 1, num_frames)),
    ):
        start = changed.find(kind) + 4 + place
        changed[start : start + 4 * len(numbers)] = struct.pack(f">{len(numbers)}I", *numbers)
    return bytes(changed)


def torch_file(value: Any, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer, again = io.BytesIO(), io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(again, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return again.getvalue()


def calls_bytearray() -> bytes:
    """A torch file of a bytearray of 64 GiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x10\x85R.")
        archive.writestr("a/version", b"3\n")
    return buffer.getvalue()


def large_png() -> bytes:
    """A PNG whose header says 65536 x 65536."""
    content = bytearray(picture(1))
    content[16:24] = struct.pack(">II", 1 << 16, 1 << 16)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def npy(shape: str) -> bytes:
    header = f"{{'descr':'<f8','fortran_order':False,'shape':{shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def compressed_frame(folder: Path) -> None:
    """A CALVIN frame of 1 MB with a picture of 1 GiB."""
    write_calvin(folder, [(0, 1)], [(0, 1, "x")])
    header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 30, 1, 1)}
    with (
        zipfile.ZipFile(folder / "training/episode_0000000.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("rgb_static.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)  # type: ignore[arg-type]
        for _ in range(64):
            member.write(bytes(1 << 24))


def made(folder: Path) -> dict[str, Callable[[], object]]:
    """Writes what the bombs need; each of them reads one."""

    def latents(content: bytes, num_frames: int) -> object:
        (folder / "x.pt").write_bytes(content)
        return _read_latents(str(folder / "x.pt"), num_frames)

    def deep() -> None:
        listed = list(Ego4D("d", str(folder / "ego4d")).list_part("000-of-001"))
        assert any(isinstance(entry, LeftOut) and entry.reason == "bad_json" for entry in listed)
        raise DataError("bad_json", "as it should be")

    def frame() -> None:
        source = Calvin("d", str(folder / "calvin"))
        (episode,) = [entry for entry in source.list_part("training:0:1") if isinstance(entry, Episode)]
        ((_, fault),) = source.frames(episode, "rgb_static", [0])
        assert isinstance(fault, DataError)
        raise fault

    (folder / "a.mp4").write_bytes(claiming(clip_video(0), 20_000_000))
    equal = pa.table({"n": pa.array(np.zeros(200_000_000, np.int8))})
    pq.write_table(equal, folder / "x.parquet", row_group_size=len(equal))
    compressed_frame(folder / "calvin")
    write_ego4d(folder / "ego4d", {"u": {}}, {}, 5)
    (folder / "ego4d/annotations/narration.json").write_text('{"u":' + "[" * 200_000)
    places = [{"name": "mp4", "offset": 0, "num_bytes": 10}]
    endless = {"episode_id": "e", "status": "written", "shard": "d/0.tar", "num_frames": 2**31 - 1, "members": places}
    write_part(str(folder / "data"), "episodes", "d", "0", [endless])
    long_clip, packed = clip_video(0, 2000), torch_file(torch.zeros(2000, 4, 32, 32), zipfile.ZIP_DEFLATED)
    repeated, equal_values = torch_file(torch.zeros(1).expand(10**6, 4, 32, 32)), (folder / "x.parquet").read_bytes()
    return {
        "a table of twenty million frames": lambda: probe(str(folder / "a.mp4")),
        "a clip of two thousand frames": lambda: decode_clip(long_clip),
        "one number as a million latents": lambda: latents(repeated, 10**6),
        "compressed latents": lambda: latents(packed, 2000),
        "a bytearray": lambda: latents(calls_bytearray(), 1),
        "a picture of four billion pixels": lambda: decode_image(large_png(), "x"),
        "compressed zeros in a frame": frame,
        "deep annotations": deep,
        "equal values": lambda: read_parquet(equal_values, "x"),
        "equal values in a table": lambda: open_parquet(str(folder / "x.parquet")).__enter__(),
        "an endless episode": lambda: read_written(str(folder / "data"), "episodes", 0),
        "an array of any size": lambda: npy_view(memoryview(npy("(1000000000000,)"))),
        "an array of any size beside pickles": lambda: load_pickled_npy(npy("(1000000000000,)"), "x"),
        "lists in lists": lambda: unpack((b"\xdd\x00\x40\x00\x00" * 500).ljust(4 << 20, b"\xc0")),
    }


def main(folder: str, num_bytes: int) -> None:
    bombs = made(Path(folder))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + num_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    told = {}
    for name, read in bombs.items():
        try:
            told[name] = f"read: {read()!r:.100}"
        except VPPError:
            told[name] = "refused"
        except BaseException as error:  # a MemoryError above all
            told[name] = repr(error)
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
