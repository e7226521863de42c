"""The video of an episode: what the camera saw, and beside it what the video model foresaw; what was told stands above.

The prediction begins with a picture of the camera and plays along with what really came; when its last frame has been
shown the video model looks again. With a video that takes as many steps between frames as the training data did, both
sides show the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vpp.sim.episode_video import EpisodeVideo
from vpp.sim.rollout import Moment, Observe, TaskResult
from vpp.video.video_strip import fitting

Foresee = Callable[[Mapping[str, np.ndarray], str, Moment], np.ndarray]
"""Predicted frames uint8 `[T, H, W, 3]` of an observation, an instruction and a moment."""

_PAPER, _INK, _FAINT, _GOOD, _BAD = "#ffffff", "#1b1f24", "#667080", "#1a7f37", "#b42318"
_MARGIN_PX, _LINE_PX, _FONT_PX = 8, 22, 15
_ALONE_PX = 384  # wide enough for what stands above
_HOLD_S = 1.0


class EpisodeFilm:
    """Implements `vpp.sim.rollout.Watcher`. Keeps the pictures of one task, until its outcome is known.

    Args:
        camera: Whose pictures are shown.
        control_hz: Steps a second; the video runs in real time.
        stride: Steps from one frame to the next.
        foresee: The video model; None to show the camera alone.
    """

    def __init__(self, camera: str, control_hz: float, stride: int, foresee: Foresee | None = None) -> None:
        self._key, self._stride, self._foresee = f"observation.images.{camera}", stride, foresee
        self._fps = control_hz / stride
        self._video = EpisodeVideo(self._fps)
        self._begin_task()

    def look(self, step: int, observe: Observe, instruction: str, moment: Moment) -> None:
        """Takes a frame every `stride` steps."""
        if step % self._stride == 0:
            self._take(observe, instruction, moment)

    def end(self, result: TaskResult, own_instruction: str, observe: Observe) -> None:
        """Takes the last frame, and adds the task to the video."""
        self._pictures.append(observe()[self._key])
        shown = len(self._pictures) - 1
        for number, picture in enumerate(self._pictures):
            self._video.add(self._page(result, own_instruction, picture, number))
        for _ in range(round(_HOLD_S * self._fps)):
            self._video.add(self._page(result, own_instruction, self._pictures[-1], shown))
        self._begin_task()

    def finish(self) -> bytes:
        """The MP4."""
        return self._video.finish()

    def _begin_task(self) -> None:
        self._pictures: list[np.ndarray] = []
        self._predictions: list[np.ndarray] = []

    def _take(self, observe: Observe, instruction: str, moment: Moment) -> None:
        seen = observe()
        if self._foresee and len(self._pictures) % self._period == 0:
            self._predictions.append(self._foresee(seen, instruction, moment))
        self._pictures.append(seen[self._key])

    @property
    def _period(self) -> int:
        """Frames of a prediction."""
        return len(self._predictions[0]) if self._predictions else 1

    def _page(self, result: TaskResult, own_instruction: str, picture: np.ndarray, number: int) -> np.ndarray:
        columns = [("camera", picture)]
        if self._predictions:
            place, frame = divmod(number, self._period)
            place, frame = (place, frame) if place < len(self._predictions) else (place - 1, self._period - 1)
            columns.append((f"foreseen, {frame + 1} of {self._period}", self._predictions[place][frame]))
        else:
            columns = [("camera", np.asarray(Image.fromarray(picture).resize((_ALONE_PX, _ALONE_PX))))]
        height, width = columns[0][1].shape[:2]
        top = 3 * _LINE_PX
        size = len(columns) * (width + _MARGIN_PX) + _MARGIN_PX, top + height + _MARGIN_PX
        page = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), _PAPER)
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=_FONT_PX)
        told = f"“{result.instruction}”"
        if own_instruction != result.instruction:
            told += f", where the task is “{own_instruction}”"
        outcome = f"{'solved in' if result.success else 'not solved in'} {result.num_steps} steps"
        available = page.width - 2 * _MARGIN_PX
        draw.text((_MARGIN_PX, 3), fitting(told, font, available), _INK, font)
        title = fitting(f"{result.task}: {outcome}", font, available)
        draw.text((_MARGIN_PX, 3 + _LINE_PX), title, _GOOD if result.success else _BAD, font)
        for column, (label, shown) in enumerate(columns):
            left = _MARGIN_PX + column * (width + _MARGIN_PX)
            draw.text((left, 3 + 2 * _LINE_PX), fitting(label, font, width), _FAINT, font)
            page.paste(Image.fromarray(shown), (left, top))
        return np.asarray(page)
