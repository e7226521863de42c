"""Frames come by exact index, whatever the container, the codec and the order of packets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from videos import read_number, write_video

from pipelines import video_file
from pipelines.video_file import count_frames, probe, read_frames
from schemas.errors import DataError

B_FRAMES = {"bf": "3", "g": "24", "x264-params": "open-gop=1:keyint=24:min-keyint=24:scenecut=0"}


def numbers(path: Path, indices: list[int]) -> list[tuple[int, int]]:
    return [(index, read_number(frame.to_ndarray(format="rgb24"))) for index, frame in read_frames(str(path), indices)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    irregular = [number + number // 7 for number in range(120)]
    return {
        "h264": write_video(folder / "h264.mp4", 150, options={"g": "12", "bf": "0"}),
        "h264 open GOP": write_video(folder / "open_gop.mp4", 150, options=B_FRAMES),
        "mpeg4": write_video(folder / "mpeg4.mp4", 90, codec="mpeg4"),
        "av1": write_video(
            folder / "av1.mp4", 40, codec="libsvtav1", options={"preset": "12", "g": "8"}, size=(128, 96)
        ),
        "vp9 webm": write_video(
            folder / "vp9.webm", 40, codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}
        ),
        "variable rate": write_video(folder / "vfr.mp4", 120, pts=irregular, options={"g": "10"}),
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_any_choice_of_frames_shows_those_frames(videos: dict[str, Path], data: st.DataObject) -> None:
    path = videos[data.draw(st.sampled_from(sorted(videos)))]
    last = count_frames(str(path)) - 1
    indices = sorted(data.draw(st.sets(st.integers(0, last), min_size=1, max_size=12)))
    assert numbers(path, indices) == [(index, index) for index in indices]


def test_every_container_counts_its_frames(videos: dict[str, Path]) -> None:
    counts = {name: count_frames(str(path)) for name, path in videos.items()}
    assert counts == {"h264": 150, "h264 open GOP": 150, "mpeg4": 90, "av1": 40, "vp9 webm": 40, "variable rate": 120}
    assert probe(str(videos["vp9 webm"])).num_frames == 0  # WebM does not say


def test_a_late_start_does_not_decode_from_the_beginning(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    number = video_file._number
    monkeypatch.setattr(video_file, "_number", lambda *given: decoded.append(number(*given)) or number(*given))
    assert numbers(videos["h264"], [140]) == [(140, 140)]
    assert min(decoded) >= 132


def test_a_frame_behind_the_end_is_a_fault_of_the_data(videos: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="frame_out_of_range"):
        numbers(videos["h264"], [3, 150])
    with pytest.raises(DataError, match="frame_out_of_range"):
        numbers(videos["vp9 webm"], [3, 40])


def test_a_lost_store_is_not_a_fault_of_the_data(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self) -> None:
            self._file = videos["h264"].open("rb")
            self._reads = 0

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def read(self, size: int = -1) -> bytes:
            self._reads += 1
            if self._reads > 3:
                raise ConnectionResetError("store went away")
            return self._file.read(min(size, 2000))

        def seek(self, *where: int) -> int:
            return self._file.seek(*where)

        def tell(self) -> int:
            return self._file.tell()

    monkeypatch.setattr(video_file, "open_read", lambda url: Failing())
    with pytest.raises(ConnectionResetError):
        numbers(videos["h264"], list(range(150)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.mp4", "not_a_video"),
        ("zero_bytes.mp4", "empty_file"),
        ("not_a_video.mp4", "not_a_video"),
        ("no.mp4", "missing_file"),
    ],
)
def test_broken_samples_have_a_reason(shared_data: Path, name: str, reason: str) -> None:
    with pytest.raises(DataError) as error:
        probe(str(shared_data / "broken" / name))
    assert error.value.reason == reason
    assert name in error.value.detail


def test_damage_inside_a_video_costs_the_frames_up_to_the_next_keyframe(
    videos: dict[str, Path], tmp_path: Path
) -> None:
    content = bytearray(videos["h264"].read_bytes())
    begin = content.find(b"mdat") + 4
    rng = np.random.default_rng(0)
    middle = begin + (len(content) - begin) // 3
    content[middle : middle + 400] = rng.integers(0, 256, 400, np.uint8).tobytes()
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    pairs = list(read_frames(str(damaged), range(150)))
    assert [index for index, _ in pairs] == list(range(150))
    faults = [index for index, frame in pairs if isinstance(frame, DataError)]
    assert 0 < len(faults) <= 24
    for index, frame in pairs:
        if index < faults[0] or index >= -(-(faults[-1] + 1) // 12) * 12:
            assert not isinstance(frame, DataError)
            assert read_number(frame.to_ndarray(format="rgb24")) == index


@pytest.mark.parametrize("kind", ["m3u8", "mp4", "ts"])
def test_a_playlist_reads_no_other_file(videos: dict[str, Path], tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "outside" / "secret.ts"
    write_video(secret, 60)
    for content in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{secret}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {secret}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ):
        playlist = tmp_path / f"playlist.{kind}"
        playlist.write_text(content)
        with pytest.raises(DataError, match="not_a_video"):
            numbers(playlist, [0])
