"""Shows a predicted clip beside the true one: as H.264 MP4, as GIF, and as a PNG film strip.

Clips are RGB frames uint8 `[T, H, W, 3]`; what is shown is a file's bytes. Without a truth only the prediction stands
there.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vpp.sim.episode_video import EpisodeVideo

TRUTH, PREDICTED = "truth", "predicted"

_PAPER, _INK, _FAINT = "#ffffff", "#1b1f24", "#667080"
_GAP_PX, _LINE_PX, _FONT_PX = 8, 24, 15


def strip_mp4(truth: np.ndarray | None, predicted: np.ndarray, caption: str, fps: float = 7.0) -> bytes:
    """An MP4 of both clips side by side under their labels and the caption.

    Args:
        truth: True frames, or None.
        predicted: Predicted frames.
        caption: One line; what does not fit is cut off.
        fps: Frames a second.
    """
    video = EpisodeVideo(fps)
    for picture in _pictures(truth, predicted, caption):
        video.add(np.asarray(picture))
    return video.finish()


def strip_gif(truth: np.ndarray | None, predicted: np.ndarray, caption: str, fps: float = 7.0) -> bytes:
    """The same as a GIF that repeats."""
    first, *others = [picture.quantize(dither=Image.Dither.NONE) for picture in _pictures(truth, predicted, caption)]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    return buffer.getvalue()


def film_strip_png(truth: np.ndarray | None, predicted: np.ndarray, caption: str, stride: int = 2) -> bytes:
    """A PNG with one row for each clip and a column for every `stride`-th frame, under the caption."""
    rows = _rows(truth, predicted)
    numbers = range(0, len(predicted), stride)
    height, width = predicted.shape[1:3]
    step_x, step_y = width + _GAP_PX, height + _LINE_PX
    page = Image.new("RGB", (len(numbers) * step_x + _GAP_PX, len(rows) * step_y + _LINE_PX + _GAP_PX), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=_FONT_PX)
    draw.text((_GAP_PX, 3), fitting(caption, font, page.width - 2 * _GAP_PX), _INK, font)
    for row, (label, frames) in enumerate(rows):
        top = _LINE_PX + row * step_y
        for column, number in enumerate(numbers):
            left = _GAP_PX + column * step_x
            title = f"{label}, frame {number + 1}" if column == 0 else str(number + 1)
            draw.text((left, top + 3), fitting(title, font, width), _FAINT, font)
            page.paste(Image.fromarray(frames[number]), (left, top + _LINE_PX))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _rows(truth: np.ndarray | None, predicted: np.ndarray) -> list[tuple[str, np.ndarray]]:
    if truth is not None and truth.shape != predicted.shape:
        raise ValueError(f"expected clips of one shape, found {truth.shape} and {predicted.shape}")
    return [(PREDICTED, predicted)] if truth is None else [(TRUTH, truth), (PREDICTED, predicted)]


def _pictures(truth: np.ndarray | None, predicted: np.ndarray, caption: str) -> Iterator[Image.Image]:
    rows = _rows(truth, predicted)
    height, width = predicted.shape[1:3]
    page_px = _even(len(rows) * width + (len(rows) - 1) * _GAP_PX), _even(height + 2 * _LINE_PX)
    font = ImageFont.load_default(size=_FONT_PX)
    title = fitting(caption, font, page_px[0] - _GAP_PX)
    for number in range(len(predicted)):
        page = Image.new("RGB", page_px, _PAPER)
        draw = ImageDraw.Draw(page)
        draw.text((4, 3), title, _INK, font)
        for column, (label, frames) in enumerate(rows):
            left = column * (width + _GAP_PX)
            draw.text((left + 4, _LINE_PX + 3), fitting(label, font, width), _FAINT, font)
            page.paste(Image.fromarray(frames[number]), (left, 2 * _LINE_PX))
        yield page


def fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> str:
    """The beginning of a text that fits, with an ellipsis where it is cut."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(line + "…") > width_px:
        line = line[:-1]
    return line.rstrip() + "…"


def _even(size_px: int) -> int:
    """H.264's 4:2:0 needs even sizes.

    >>> _even(11), _even(12)
    (12, 12)
    """
    return size_px + size_px % 2
