"""Stored frames keep their colours whatever the source's matrix and range, and the same frames give the same bytes."""

from __future__ import annotations

import io
from itertools import pairwise

import av
import numpy as np
import pytest
from videos import numbered_frame, read_number

from pipelines.encode_video import VideoSettings, decode_video, encode_video
from pipelines.frames import FrameResizer, is_blank, luma

TOP, BOTTOM = (15, 200, 30), (220, 40, 90)


def two_colours(height: int = 480, width: int = 640) -> av.VideoFrame:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2], picture[height // 2 :] = TOP, BOTTOM
    return av.VideoFrame.from_ndarray(picture, format="rgb24")


@pytest.mark.parametrize(("matrix", "tag"), [("ITU601", 5), ("ITU709", 1)])
@pytest.mark.parametrize(("colour_range", "range_tag"), [("MPEG", 1), ("JPEG", 2)])
def test_colours_survive_matrix_and_range_of_the_source(
    matrix: str, tag: int, colour_range: str, range_tag: int
) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, range_tag
        frame = two_colours().reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=colour_range)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        resized = FrameResizer()(next(container.decode(video=0)))
    stored = decode_video(encode_video([resized] * 16, VideoSettings(crf=1)))[7]
    np.testing.assert_allclose(stored[20, 20], TOP, atol=6)
    np.testing.assert_allclose(stored[230, 20], BOTTOM, atol=6)


@pytest.mark.parametrize("size", [(48, 64), (480, 640), (256, 256), (240, 361), (84, 84)])
def test_every_size_becomes_256_square(size: tuple[int, int]) -> None:
    resized = FrameResizer()(two_colours(*size))
    assert (resized.width, resized.height, resized.format.name) == (256, 256, "yuv420p")
    np.testing.assert_allclose(resized.to_ndarray(format="rgb24")[20, 20], TOP, atol=6)


def test_the_same_frames_give_the_same_bytes_even_after_use_in_another_clip() -> None:
    resize = FrameResizer()
    frames = [resize(av.VideoFrame.from_ndarray(numbered_frame(n, 128, 96), format="rgb24")) for n in range(24)]
    first = encode_video(frames[:16], VideoSettings())
    encode_video(frames[8:], VideoSettings())
    assert encode_video(frames[:16], VideoSettings()) == first
    assert [read_number(frame) for frame in decode_video(first)] == list(range(16))


def test_episodes_have_a_keyframe_as_often_as_asked() -> None:
    frames = [FrameResizer()(av.VideoFrame.from_ndarray(numbered_frame(n), format="rgb24")) for n in range(25)]
    content = encode_video(frames, VideoSettings(), fps=30, keyframe_every=10)
    with av.open(io.BytesIO(content)) as container:
        keys = [frame.key_frame for frame in container.decode(video=0)]
    numbers = [number for number, is_key in enumerate(keys) if is_key]
    assert numbers[0] == 0
    assert all(later - earlier <= 10 for earlier, later in pairwise([*numbers, 25]))


def test_blank_means_that_no_frame_shows_anything() -> None:
    resize = FrameResizer()
    blank = resize(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 30, np.uint8), format="rgb24"))
    shown = resize(two_colours())
    assert is_blank([blank] * 16)
    assert not is_blank([blank] * 15 + [shown])
    assert luma(shown).shape == (256, 256)


@pytest.mark.parametrize("wrong", [{"crf": 52}, {"crf": -1}, {"keyframe_every": 0}])
def test_a_video_setting_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VideoSettings(**wrong)
