"""Puts the report together: one HTML file beside the runs, which it shows by relative links, without scripts."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from schemas.storage import absolute, join, write_bytes
from vpp.report.damage import naming_damage
from vpp.report.dataset_section import DatasetView, dataset_part
from vpp.report.evaluation_section import ALL, Evaluation, evaluations_part, read_evaluation
from vpp.report.find_runs import Run
from vpp.report.html import Html, inside, number, tag
from vpp.report.run_curves import TrainingLog, read_training_log
from vpp.report.style import STYLE
from vpp.report.timings_section import timings_part
from vpp.report.training_section import training_part

REPORT = "report.html"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' file: data:; media-src 'self' file: data:"


def write_report(root: str, made: str, runs: Sequence[Run], datasets: Sequence[DatasetView]) -> str:
    """Writes `<root>/report.html` and returns its URL.

    Args:
        root: The folder of the runs, or its URL.
        made: When and by which commit.
        runs: Those that were found in there.
        datasets: What the manifests of its datasets say.

    Raises:
        UsageError: If a run's files are not what its job writes.
    """
    with naming_damage(root):
        return _write(root, made, runs, datasets)


def _write(root: str, made: str, runs: Sequence[Run], datasets: Sequence[DatasetView]) -> str:
    trainings = [(run, read_training_log(run.url)) for run in runs if run.kind in ("stage1", "stage2")]
    evaluations = [read_evaluation(run) for run in runs if run.kind == "evaluation"]
    title, url = absolute(root).rstrip("/").rsplit("/", 1)[-1], join(root, REPORT)
    stage1, stage2 = ([one for one in trainings if one[0].kind == kind] for kind in ("stage1", "stage2"))
    data = datasets[0].run.url if datasets else root
    model, policy = (
        some[0][0].url if some else join(root, name) for some, name in ((stage1, "stage1"), (stage2, "stage2"))
    )
    sections: list[tuple[str, str, Sequence[tuple[Run | None, Html]], str]] = [
        ("data", "Data", [(view.run, dataset_part(view)) for view in datasets],
         f"python jobs/preprocess.py --output {root} --sources NAME=KIND:URL"),
        ("video-model", "Video model", [(run, training_part(run, log)) for run, log in stage1],
         f"python jobs/stage1.py --data {data} --output {model}"),
        ("policy", "Policy", [(run, training_part(run, log)) for run, log in stage2],
         f"python jobs/stage2.py --data {data} --video-model {model} --output {policy}"),
        ("success", "Success", [(None, evaluations_part(evaluations))] if evaluations else [],
         f"python jobs/evaluate.py --policy {policy} --output {join(root, 'evaluate')} --videos 2"),
        ("timings", "Timings", [(None, timings_part(datasets, trainings, evaluations))], ""),
        ("configuration", "Resolved configuration", [(None, inside(*map(_configuration, runs)))] if runs else [],
         "any of the jobs above"),
    ]  # fmt: skip
    links = (tag("a", title, href=f"#{anchor}") for anchor, title, _, _ in sections)
    body = tag(
        "main",
        tag("header", tag("h1", title),
            tag("p", f"Video prediction policy · {made}", class_="faint"),
            *map(_stand_ins, datasets), tag("nav", *links)),
        tag("div", *_tiles(datasets, trainings, evaluations), class_="tiles"),
        *(_section(anchor, title, parts, command) for anchor, title, parts, command in sections),
    )  # fmt: skip
    head = inside(
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"{title}: report"),
        tag("style", Html(STYLE)),
    )
    page = f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"
    write_bytes(url, page.encode())
    return url


def _section(anchor: str, title: str, parts: Sequence[tuple[Run | None, Html]], command: str) -> Html:
    if not parts:
        missing = tag("p", "Not there yet. This makes it: ", tag("code", command), class_="missing")
        return tag("section", tag("h2", title), missing, id=anchor)
    shown = (inside(tag("h3", run.name) if run and len(parts) > 1 else Html(), part) for run, part in parts)
    return tag("section", tag("h2", title), *shown, id=anchor)


def _stand_ins(view: DatasetView) -> Html:
    names = view.stand_ins()
    if not names:
        return Html()
    told = (
        f"{view.run.name} was made with random stand-ins ({', '.join(names)}): it shows the way, not what is possible."
    )
    return tag("p", told, class_="note")


def _tiles(
    datasets: Sequence[DatasetView], trainings: Sequence[tuple[Run, TrainingLog]], evaluations: Sequence[Evaluation]
) -> list[Html]:
    tiles = []
    for view in datasets:
        tiles.append(_tile("#data", number(view.written("clips")), f"clips, {view.written('episodes'):,} episodes"))
    for run, log in trainings:
        psnr, error = log.last("val/psnr"), log.last("val/action_mse")
        if psnr is not None:
            still = number(log.last("val/psnr_copy"))
            tiles.append(
                _tile("#video-model", f"{number(psnr)} dB", f"held-out PSNR of {run.name}; a still picture {still}")
            )
        if error is not None:
            mean = number(log.last("val/action_mse_constant"))
            tiles.append(_tile("#policy", number(error), f"squared action error of {run.name}; a constant {mean}"))
    for evaluation in evaluations:
        rates = list(evaluation.rates.values())
        if rates:
            rate = evaluation.rates.get(ALL, rates[0])
            tiles.append(_tile("#success", f"{rate.k} of {rate.n}", f"solved by {evaluation.title}"))
    return tiles


def _tile(anchor: str, value: object, text: str) -> Html:
    return tag("a", tag("b", value), tag("span", text), href=anchor)


def _configuration(run: Run) -> Html:
    told = {name: value for name, value in run.record.items() if name not in ("datasets", "this_run")}
    text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100)
    kind = {"dataset": "preprocess", "evaluation": "evaluate"}.get(run.kind, run.kind)
    return tag(
        "details", tag("summary", f"{run.name} ", tag("span", f"jobs/{kind}.py", class_="faint")), tag("pre", text)
    )
