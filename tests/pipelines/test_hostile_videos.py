"""Videos that claim more than they hold, or that would have FFmpeg read another file."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hostile import EFFORTS, mutants, survives
from small_dataset import clip_video, write_shard
from videos import write_video

from pipelines import contact_sheet
from pipelines.encode_video import VideoSettings, decode_video, encode_video
from pipelines.plan import ShardSettings, make_plan
from pipelines.query import Manifest
from pipelines.video_file import count_frames, probe, read_frames
from pipelines.windows import WindowSettings
from schemas import closed_video
from schemas.episode import MAX_FRAMES, Episode, Segment
from schemas.errors import DataError
from schemas.mp4_boxes import check_sample_tables
from vpp.data.video_frames import decode_clip, decode_first_frame, decode_frame


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


def test_a_table_that_claims_a_million_frames_is_not_given_to_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    check_sample_tables(io.BytesIO(path.read_bytes()))
    path.write_bytes(claiming(path.read_bytes(), 1_000_000))
    clip = claiming(clip_video(0), 1_000_000)
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("FFmpeg has read it"))
    for read in (probe, count_frames, lambda url: list(read_frames(url, [0]))):
        with pytest.raises(DataError, match=r"too_many_frames.*a\.mp4"):
            read(str(path))
    with pytest.raises(DataError, match="too_many_frames"):
        decode_clip(clip)


def test_a_compressed_header_is_refused() -> None:
    content = clip_video(0).replace(b"mvhd", b"cmov")
    with pytest.raises(DataError, match="compressed"):
        check_sample_tables(io.BytesIO(content))


def test_what_is_no_mp4_is_left_to_ffmpeg() -> None:
    for content in (b"", b"x", b"\x1aE\xdf\xa3" + bytes(100), struct.pack(">I4s", 8, b"moov") * 20_000):
        handle = io.BytesIO(content)
        check_sample_tables(handle)
        assert handle.tell() == 0


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(closed_video, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(DataError, match=r"too_many_pixels: .*found 64 x 48 in .*a\.mp4"):
        probe(str(path))
    with pytest.raises(DataError, match="too_many_pixels"):
        decode_first_frame(clip_video(0))


def test_frames_that_grow_behind_the_header_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8)).reformat(64, 64, "yuv420p")] * 3
    with av.open(io.BytesIO(encode_video(frames, VideoSettings())), "r") as container:
        stream = closed_video.video_stream(container)
        assert stream.codec_context.options == {"max_pixels": str(closed_video.MAX_PIXELS)}  # FFmpeg's own limit


def test_a_clip_of_a_thousand_frames_is_read_no_further_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="expected 16 frames, found 17 or more"):
        decode_clip(clip_video(0, 60))


def test_a_playlist_in_a_shard_reads_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip_video(0))
    for content in (f"#EXTM3U\n#EXTINF:2.0,\n{secret}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile {secret}\n"):
        for read in (decode_video, decode_clip, decode_first_frame, lambda data: decode_frame(data, 0)):
            with pytest.raises((DataError, av.error.FFmpegError)):
                read(content.encode())


def test_a_hostile_clip_is_a_fault_on_the_contact_sheet(tmp_path: Path) -> None:
    columns = {"camera": "top", "caption": "x", "start_frame": 0, "end_frame": 16}
    videos = {
        "a": clip_video(0, 40),
        "b": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "c": claiming(clip_video(0), 10**6),
    }
    write_shard(str(tmp_path), "d", "000000", {name: (columns, {"mp4": video}) for name, video in videos.items()})
    with Manifest.open(str(tmp_path)) as manifest:
        rows = contact_sheet.choose_clips(manifest, 3, 0)
    faults = {row["clip_id"]: contact_sheet._card(str(tmp_path), row).fault for row in rows}
    assert "found 17 or more" in faults["a"]
    assert faults["b"].startswith("decode_error")
    assert "too_many_frames" in faults["c"]


@EFFORTS
def test_any_clip_decodes_or_is_one_of_our_errors(effort: int) -> None:
    content = clip_video(0)
    survives(decode_clip, mutants(content), effort)
    survives(lambda data: decode_frame(data, 5), mutants(content), effort)


def test_an_episode_that_claims_to_be_endless_fills_no_disk(tmp_path: Path) -> None:
    episodes = [
        Episode("long", "", "u", MAX_FRAMES + 1, 30.0, ("a",), (Segment(0, MAX_FRAMES + 1, "x"),)),
        Episode("often", "", "u", 10**6, 30.0, ("a",), tuple(Segment(0, 10**6, f"x {n}") for n in range(20))),
        Episode("fine", "", "u", 20, 30.0, ("a",), (Segment(0, 20, "x"),)),
    ]
    windows = WindowSettings(mode="sliding")
    summary = make_plan(str(tmp_path), "d", episodes, windows, ShardSettings(), ("clips",))
    with Manifest.open(str(tmp_path)) as manifest:
        rows = manifest.select("select source_episode, reason from clips order by all").to_pylist()
    assert rows == [{"source_episode": name, "reason": "too_many_frames"} for name in ("long", "often")]
    assert summary.planned["clips"] == 2 + 9
