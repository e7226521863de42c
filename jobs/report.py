"""Shows a preprocessed dataset: a contact sheet of clips with their captions as a PNG and as a page. See `--help`."""

from dataclasses import dataclass

import tyro

from pipelines.contact_sheet import write_contact_sheet
from schemas.errors import UsageError
from schemas.settings import load_settings, run_job


@dataclass(frozen=True)
class ReportSettings:
    """Writes contact_sheet.png and contact_sheet.html.

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Attributes:
        dataset: URL of the output of a preprocessing run.
        output: Folder to write to; the dataset's own by default.
        clips: How many clips to show.
    """

    dataset: tyro.conf.Positional[str] = ""
    output: str = ""
    clips: int = 24


def main() -> None:
    """Parses, draws, prints where to look."""
    settings = load_settings(ReportSettings, "report")
    if not settings.dataset:
        raise UsageError("expected a dataset: python jobs/report.py DATASET")
    if settings.clips < 1:
        raise UsageError(f"--clips: expected at least 1, found {settings.clips}")
    written = write_contact_sheet(settings.dataset, settings.output or settings.dataset, settings.clips)
    print(f"{written['num_clips']} clips\npicture: {written['picture']}\npage:    {written['page']}")


if __name__ == "__main__":
    run_job(main)
