"""A contact sheet shows clips of every dataset and camera, plays them, and lets no caption out of its text."""

from __future__ import annotations

import io
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont
from small_dataset import clip_video, write_part, write_shard
from videos import read_number

from pipelines.contact_sheet import choose_clips, write_contact_sheet
from pipelines.contact_sheet_image import wrap
from pipelines.encode_video import decode_video
from pipelines.query import Manifest
from schemas.errors import UsageError

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> & </p></style>"


class Page(HTMLParser):
    """Collects tags, sources and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("dataset"))
    number = 0
    for dataset, cameras in {"a": ["left", "right"], "b": ["top"]}.items():
        clips = {}
        for camera in cameras:
            for _ in range(4 if dataset == "a" else 1):
                columns = {
                    "camera": camera,
                    "caption": f"count {number}",
                    "start_frame": number,
                    "end_frame": number + 16,
                }
                clips[f"{number:020x}"] = (columns, {"mp4": clip_video(number * 20), "txt": b"count"})
                number += 1
        write_shard(url, dataset, "000000", clips)
    row = {"clip_id": "x", "status": "rejected", "reason": "decode_error", "detail": HOSTILE, "caption": HOSTILE}
    write_part(url, "clips", "b", "plan-000000", [row])
    return url


def test_datasets_and_cameras_take_turns_and_the_seed_decides(url: str) -> None:
    with Manifest.open(url) as manifest:
        three = choose_clips(manifest, 3, 0)
        assert {(row["dataset"], row["camera"]) for row in three} == {("a", "left"), ("a", "right"), ("b", "top")}
        assert choose_clips(manifest, 3, 0) == three
        assert len({tuple(row["clip_id"] for row in choose_clips(manifest, 3, seed)) for seed in range(8)}) > 1
        assert len(choose_clips(manifest, 100, 0)) == 9


def test_the_page_plays_the_clips_and_needs_nothing_else(url: str, tmp_path: Path) -> None:
    result = write_contact_sheet(url, str(tmp_path), 3)
    page = Page(Path(result["page"]).read_text())
    sources = [value or "" for name, value in page.attributes if name in ("src", "poster", "href")]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "script" not in page.tags
    films = [decode_video(b64decode(s.partition(",")[2])) for s in sources if s.startswith("data:video/mp4")]
    assert [film.shape for film in films] == [(16, 256, 256, 3)] * 3
    for film in films:
        assert [read_number(frame) for frame in film] == [read_number(film[0]) + n for n in range(16)]
    assert page.tags.count("img") == 12
    assert "decode_error" in page.text
    assert "default-src 'none'" in str(page.attributes)


def test_the_picture_shows_frames_0_5_10_and_15(url: str, tmp_path: Path) -> None:
    result = write_contact_sheet(url, str(tmp_path), 3)
    assert result["num_clips"] == 3
    with Manifest.open(url) as manifest:
        rows = choose_clips(manifest, 3, 0)
    sheet = np.asarray(Image.open(io.BytesIO(Path(result["picture"]).read_bytes())))
    for line, row in enumerate(rows):
        top = 20 + line * (176 + 92 + 28 + 20) + 14
        numbers = [read_number(sheet[top : top + 176, left : left + 176]) for left in range(34, 34 + 4 * 182, 182)]
        assert numbers == [row["start_frame"] * 20 + n for n in (0, 5, 10, 15)]


def test_the_same_dataset_gives_the_same_files(url: str, tmp_path: Path) -> None:
    first, second = (write_contact_sheet(url, str(tmp_path / name), 5) for name in "ab")
    for name in ("picture", "page"):
        assert Path(first[name]).read_bytes() == Path(second[name]).read_bytes()


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    columns = {"camera": HOSTILE, "caption": HOSTILE, "start_frame": 0, "end_frame": 16, "source_episode": HOSTILE}
    write_shard(str(tmp_path), "d", "000000", {"c": (columns, {"mp4": clip_video(0)})})
    result = write_contact_sheet(str(tmp_path), str(tmp_path), 1)
    page = Page(Path(result["page"]).read_text())
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count(HOSTILE) == 3


def test_a_clip_that_cannot_be_shown_shows_why(tmp_path: Path) -> None:
    columns = {"camera": "c", "caption": "open", "start_frame": 0, "end_frame": 16}
    clips = {
        "broken": (columns, {"mp4": b"not a video"}),
        "short": (columns, {"mp4": clip_video(0, 9)}),
        "no-video": (columns, {"txt": b"open"}),
    }
    write_shard(str(tmp_path), "d", "000000", clips)
    write_shard(str(tmp_path), "gone", "000000", {"lost": (columns, {"mp4": clip_video(0)})})
    (tmp_path / "clips/shards/gone/000000.tar").unlink()
    result = write_contact_sheet(str(tmp_path), str(tmp_path), 10)
    assert result["num_clips"] == 4
    text = Page(Path(result["page"]).read_text()).text
    for reason in ("decode_error: expected 16 frames, found 9", "missing_member", "missing_file"):
        assert reason in text
    assert text.count("decode_error") == 2


def test_a_dataset_without_written_clips_has_a_sheet_that_says_so(tmp_path: Path) -> None:
    write_part(str(tmp_path), "clips", "d", "000000", [{"clip_id": "x", "status": "rejected", "reason": "blank"}])
    result = write_contact_sheet(str(tmp_path), str(tmp_path), 4)
    assert result["num_clips"] == 0
    assert "No written clips." in Path(result["page"]).read_text()
    with pytest.raises(UsageError, match="at least 1"):
        write_contact_sheet(str(tmp_path), str(tmp_path), 0)


def test_text_wraps_within_its_width() -> None:
    font = ImageFont.load_default(size=16)
    for text in ("word " * 100, "x" * 500, "short", "", "tab\tand\nline"):
        lines = wrap(text, font, 200, 2)
        assert len(lines) <= 2
        assert all(font.getlength(line) <= 200 for line in lines)
    assert wrap("short", font, 200, 2) == ["short"]
    assert wrap("word " * 100, font, 200, 2)[-1].endswith("…")
