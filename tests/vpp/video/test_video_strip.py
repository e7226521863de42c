"""Pictures of a prediction: readable files, both clips where they should be, any caption."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from PIL import Image

from vpp.video.video_strip import film_strip_png, strip_gif, strip_mp4


def coloured(red: int, num_frames: int = 5, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    frames = np.zeros((num_frames, *size, 3), np.uint8)
    frames[..., 0] = red
    return frames


TRUTH, PREDICTED = coloured(220), coloured(40)


def mp4_frames(content: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def gif_frames(content: bytes) -> list[np.ndarray]:
    picture = Image.open(io.BytesIO(content))
    frames = []
    for number in range(picture.n_frames):
        picture.seek(number)
        frames.append(np.array(picture.convert("RGB")))
    return frames


def fading(num_frames: int) -> np.ndarray:
    return np.concatenate([coloured(red, 1) for red in np.linspace(0, 250, num_frames).astype(int)])


@pytest.mark.parametrize(("write", "read"), [(strip_mp4, mp4_frames), (strip_gif, gif_frames)])
def test_a_video_shows_the_truth_left_and_the_prediction_right_in_every_frame(write, read) -> None:
    truth = fading(5)
    frames = read(write(truth, PREDICTED, "open the drawer"))
    assert len(frames) == 5
    for number, frame in enumerate(frames):
        height, width = frame.shape[:2]
        assert (height % 2, width % 2) == (0, 0)
        assert abs(int(frame[-20, 20, 0]) - int(truth[number, 0, 0, 0])) < 30
        assert abs(int(frame[-20, -20, 0]) - 40) < 30


@pytest.mark.parametrize(("write", "read"), [(strip_mp4, mp4_frames), (strip_gif, gif_frames)])
def test_without_a_truth_only_the_prediction_is_shown(write, read) -> None:
    frame = read(write(None, PREDICTED, "open the drawer"))[0]
    assert frame.shape[1] == 64
    assert abs(int(frame[-20, 32, 0]) - 40) < 30


def test_the_film_strip_has_a_row_for_each_clip_and_every_second_frame() -> None:
    page = Image.open(io.BytesIO(film_strip_png(TRUTH, PREDICTED, "open the drawer")))
    pixels = np.array(page)
    red = [(pixels == (value, 0, 0)).all(-1).sum() for value in (220, 40)]
    assert red == [3 * 48 * 64] * 2
    alone = np.array(Image.open(io.BytesIO(film_strip_png(None, PREDICTED, "open the drawer"))))
    assert (alone == (40, 0, 0)).all(-1).sum() == 3 * 48 * 64
    assert alone.shape[0] < pixels.shape[0]


@pytest.mark.parametrize("caption", ["", "word " * 100, "Größe ✓ 抽屉を開ける", "two\nlines\x00\ttabs", "x" * 500])
def test_any_caption_is_drawn(caption: str) -> None:
    for write in (strip_mp4, strip_gif, film_strip_png):
        assert write(TRUTH[:2], PREDICTED[:2], caption)


def test_the_same_clips_give_the_same_bytes() -> None:
    for write in (strip_gif, film_strip_png):
        assert write(TRUTH, PREDICTED, "a") == write(TRUTH, PREDICTED, "a")


def test_odd_sizes_are_shown() -> None:
    odd = coloured(40, 2, (33, 41))
    assert len(mp4_frames(strip_mp4(odd, odd, "a"))) == 2


def test_clips_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        strip_gif(TRUTH[:3], PREDICTED, "a")
