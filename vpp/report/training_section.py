"""The parts of the report on trainings: curves, and for a video model what it predicts beside what came."""

from __future__ import annotations

from typing import Any

from schemas.storage import join, list_names
from vpp.report.find_runs import Run
from vpp.report.html import Html, film, inside, link, number, tag
from vpp.report.line_chart import Point, Series, line_chart
from vpp.report.run_curves import TrainingLog

_VIDEOS = 6
_STILL = "Only above the still picture does the model foresee more than that nothing moves."
_CONSTANT = "Only below the constant does the policy know more than what is usual."


def training_part(run: Run, log: TrainingLog) -> Html:
    """A run's facts and curves, and where it is of stage 1 its predicted videos."""
    loss = line_chart(
        "Loss", [Series("training", log.loss), Series("held out", log.points("val/loss"))], "step", is_log=True
    )
    if run.kind == "stage1":
        told = {"predicted": "psnr", "a still picture": "psnr_copy"}
        series = [Series(name, _by_frame(log, f"val_{metric}_by_frame/")) for name, metric in told.items()]
        judged, note = line_chart("PSNR of held-out clips by frame, in dB", series, "frame"), _STILL
    else:
        told = {"drawn actions": "action_mse", "a constant, their mean": "action_mse_constant"}
        series = [Series(name, log.points(f"val/{metric}")) for name, metric in told.items()]
        judged, note = line_chart("Squared error of held-out actions, normalised", series, "step"), _CONSTANT
    charts = inside(tag("div", loss, judged, class_="charts"), tag("p", note, class_="faint"))
    return inside(_facts(run, log), charts, _previews(run) if run.kind == "stage1" else Html())


def _facts(run: Run, log: TrainingLog) -> Html:
    settings: dict[str, Any] = run.record.get("settings", {})
    train = settings.get("train", {})
    start = f"preset {settings['preset']}" if settings.get("preset") else f"from {settings.get('base', 'the defaults')}"
    facts = [
        f"{number(log.last_step or 0)} of {number(train.get('steps'))} steps",
        f"{number(train.get('batch_size'))} samples a step",
        start,
        f"commit {run.record.get('commit', 'unknown')}",
    ]
    return tag("p", " · ".join(facts), class_="faint")


def _by_frame(log: TrainingLog, prefix: str) -> list[Point]:
    found = [name for name in sorted(log.curves) if name.startswith(prefix)]
    values = ((int(name.removeprefix(prefix)) + 1, log.last(name)) for name in found)
    return [Point(frame, value) for frame, value in values if value is not None]


def _previews(run: Run) -> Html:
    folder = join(run.url, "previews")
    steps = list_names(folder)
    if not steps:
        return tag("p", "No predicted videos yet: a validation makes them.", class_="missing")
    names = [name for name in list_names(join(folder, steps[-1])) if name.endswith(".mp4")][:_VIDEOS]
    films = []
    for name in names:
        path = run.inside(f"previews/{steps[-1]}/{name}")
        strip = tag("a", "all frames side by side", href=link(path.removesuffix(".mp4") + ".png"))
        films.append(film(link(path), strip))
    heading = f"Left the truth, right what was predicted from its first frame and the caption, after {_step(steps[-1])}"
    return inside(tag("h4", heading), tag("div", *films, class_="films wide"))


def _step(folder: str) -> str:
    """The name of a folder of previews for people.

    >>> _step("step_00000020")
    '20 steps'
    """
    digits = folder.removeprefix("step_")
    return f"{int(digits):,} steps" if digits.isdecimal() else folder
