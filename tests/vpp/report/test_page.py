"""The page finds runs by their files, says what is missing, and lets no text out of its place."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from browsed import Page
from finished_run import HOSTILE, write_run, write_training
from running import run
from s3 import S3Server

from schemas.errors import UsageError
from schemas.storage import read_bytes
from vpp.report.find_runs import find_runs
from vpp.report.page import write_report
from vpp.report.run_curves import read_training_log
from vpp.train.run_log import RunLog

MADE = "today"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "run"
    write_run(root)
    code, output = run("report", root, cwd=root)
    assert code == 0, output
    return root


def test_runs_are_found_by_their_files(finished: Path) -> None:
    found = {(one.kind, one.path) for one in find_runs(str(finished))}
    trainings = {("stage1", "first #1"), ("stage2", "b/second")}
    assert found == trainings | {("dataset", "")} | {("evaluation", name) for name in ("try", "try two", "best")}


def test_every_address_is_inside_the_folder_and_leads_to_a_file(finished: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(shutil.copytree(finished, tmp_path / "copy"), tmp_path / "elsewhere"))
    page = Page((moved / "report.html").read_text())
    addresses = [value for name, value in page.attributes if name in ("src", "href") and not value.startswith("data:")]
    files = [unquote(value) for value in addresses if not value.startswith("#")]
    assert {"./first #1/previews/step_00000040/clip.mp4", "./try/videos/000000.mp4", "./contact_sheet.html"} <= set(
        files
    )
    assert all((moved / name).is_file() for name in files)
    anchors = {value for name, value in page.attributes if name == "id"}
    assert {value[1:] for value in addresses if value.startswith("#")} <= anchors


def test_hostile_text_stays_text(finished: Path) -> None:
    page = Page((finished / "report.html").read_text())
    assert not {"script", "img", "iframe"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count(HOSTILE) > 8
    assert (
        "content",
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' file: data:; media-src 'self' file: data:",
    ) in page.attributes


def test_the_page_tells_counts_stand_ins_rates_and_commits(finished: Path) -> None:
    text = Page((finished / "report.html").read_text()).text
    for told in ("decode_error", "tiny stand-in", "1 of 1", "21.5 dB", "told another task's instruction", "abc123"):
        assert told in text


def test_what_is_missing_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    (tmp_path / "left/over").mkdir(parents=True)
    runs = find_runs(str(tmp_path))
    text = Page(Path(write_report(str(tmp_path), MADE, runs, [])).read_text()).text
    for job in ("preprocess", "stage1", "stage2", "evaluate"):
        assert f"python jobs/{job}.py" in text
    with pytest.raises(UsageError, match="found nothing"):
        find_runs(str(tmp_path / "nowhere"))
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="expected JSON"):
        find_runs(str(tmp_path))


def test_an_evaluation_that_has_not_ended_is_named(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished / "try", tmp_path / "try")
    (tmp_path / "try/summary.json").unlink()
    page = write_report(str(tmp_path), MADE, find_runs(str(tmp_path)), [])
    assert "try has not ended" in Path(page).read_text()


def test_evaluations_under_other_conditions_are_told_apart(tmp_path: Path, finished: Path) -> None:
    assert "compare with care" not in (finished / "report.html").read_text()
    shutil.copytree(finished / "try", tmp_path / "try")
    shutil.copytree(finished / "best", tmp_path / "best")
    (tmp_path / "best/evaluation.json").write_text('{"policy": "expert", "max_steps": 40}')
    page = write_report(str(tmp_path), MADE, find_runs(str(tmp_path)), [])
    assert "compare with care: max steps." in Path(page).read_text()


def test_a_resumed_run_shows_the_values_it_made_last(tmp_path: Path) -> None:
    write_training(tmp_path, {})
    log = RunLog(str(tmp_path), 30)
    log.add_curves(40, {"val/loss": 7.0})
    log.close()
    read = read_training_log(str(tmp_path))
    assert read.curves["val/loss"] == pytest.approx({20: 0.05, 40: 7.0})


def test_runs_on_an_object_store_are_read_and_the_page_is_written_there(
    s3: S3Server, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "s3/bucket/run")
    url = write_report("s3://bucket/run", MADE, find_runs("s3://bucket/run"), [])
    assert url == "s3://bucket/run/report.html"
    text = Page(read_bytes(url).decode()).text
    assert "40 of 40 steps" in text
    assert "Episodes: scripted expert (best)" in text
