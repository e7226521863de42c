"""Shows a run as a page: data, curves, predicted videos, success, timings, settings. See `--help`."""

from dataclasses import dataclass
from datetime import UTC, datetime

import tyro

from pipelines.contact_sheet import write_contact_sheet
from pipelines.contact_sheet_card import Card
from pipelines.query import Manifest
from runtime.job import run_job
from runtime.settings import commit, load_settings
from schemas.errors import UsageError
from vpp.report.dataset_section import Clip, DatasetView
from vpp.report.find_runs import Run, find_runs
from vpp.report.page import write_report

_CLIPS_ON_PAGE = 8


@dataclass(frozen=True)
class ReportSettings:
    """Writes report.html into a run's folder, and contact_sheet.png and .html into each dataset there, for example:

    python jobs/report.py out/demo

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Attributes:
        folder: Folder or URL in which datasets, trainings and evaluations lie, up to two levels deep.
        clips: How many clips a contact sheet shows.
    """

    folder: tyro.conf.Positional[str] = ""
    clips: int = 24


def main() -> None:
    """Parses, looks for runs, draws, prints where to look."""
    settings = load_settings(ReportSettings, "report")
    if not settings.folder:
        raise UsageError("expected the folder of a run: python jobs/report.py FOLDER")
    if settings.clips < 1:
        raise UsageError(f"--clips: expected at least 1, found {settings.clips}")
    folder = settings.folder.rstrip("/")
    runs = find_runs(folder)
    datasets = [_view(run, settings.clips) for run in runs if run.kind == "dataset"]
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · commit {commit()}"
    print(f"report: {write_report(folder, made, runs, datasets)}")


def _view(run: Run, num_clips: int) -> DatasetView:
    """Draws a dataset's contact sheet, and asks its manifest."""
    written = write_contact_sheet(run.url, run.url, num_clips)
    print(f"{written['num_clips']} clips\npicture: {written['picture']}\npage:    {written['page']}")
    cards: list[Card] = written["cards"]
    shown = cards[:: -(-len(cards) // _CLIPS_ON_PAGE) or 1]
    with Manifest.open(run.url) as manifest:
        counts, rejected, made_of = (manifest.named(name).to_pylist() for name in ("counts", "rejected", "datasets"))
    return DatasetView(run, counts, rejected, made_of, [_clip(card) for card in shown])


def _clip(card: Card) -> Clip:
    row = card.row
    place = f"{row['dataset']}, {row['camera']}, frames {row['start_frame']} to {row['end_frame']}"
    return Clip(row["caption"] or "", f"{place} of {row['source_episode']}", card.video, card.fault)


if __name__ == "__main__":
    run_job(main)
