"""The part of the report on time: how long each job took, and how fast trainings ran."""

from __future__ import annotations

from collections.abc import Sequence

from vpp.report.dataset_section import DatasetView
from vpp.report.evaluation_section import Evaluation
from vpp.report.find_runs import Run
from vpp.report.html import Html, inside, table, tag
from vpp.report.run_curves import TrainingLog


def timings_part(
    datasets: Sequence[DatasetView], trainings: Sequence[tuple[Run, TrainingLog]], evaluations: Sequence[Evaluation]
) -> Html:
    """A table for each kind of job."""
    parts = []
    preprocessed = [(view.run.name, view.run.record["this_run"]) for view in datasets if "this_run" in view.run.record]
    if preprocessed:
        lines = [
            [
                name,
                run["shards"],
                run["written"],
                run["written"] / (run["seconds"] or 1),
                run["num_bytes"] / 1e6,
                run["total_seconds"],
            ]
            for name, run in preprocessed
        ]
        head = ["folder", "shards", "written", "written per second", "MB", "seconds in all"]
        parts += [tag("h4", "Preprocessing, its last run"), table(head, lines)]
    if trainings:
        names = ("speed/step_s", "speed/samples_per_s", "speed/data_wait_share")
        lines = [
            [run.name, *(log.median(name) for name in names), log.last("memory/peak_gb")] for run, log in trainings
        ]
        head = ["folder", "seconds a step", "samples per second", "share waiting for data", "peak memory, GB"]
        parts += [tag("h4", "Training, medians of the log"), table(head, lines)]
    ended = [one for one in evaluations if one.summary.get("num_episodes")]
    if ended:
        lines = [
            [one.run.name, one.summary["num_episodes"], one.summary["seconds"],
             one.summary["seconds"] / one.summary["num_episodes"]]
            for one in ended
        ]  # fmt: skip
        head = ["folder", "episodes", "seconds of all episodes, added up", "seconds an episode"]
        parts += [tag("h4", "Evaluation"), table(head, lines)]
    return inside(*parts) if parts else tag("p", "No job has told its times yet.", class_="missing")
