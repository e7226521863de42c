"""What the pages tell: counts, filters, pages of a list, a clip, an episode, runs side by side; text stays text."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from browsed import NUM_MANY, Answer, ask, browsing, clip_id, crawl
from finished_run import HOSTILE, write_training
from s3 import S3Server
from small_dataset import write_part, write_shard

from vpp.sim.chain_results import summarise_chains
from vpp.sim.evaluation_rows import write_json

CLIP = re.compile(r'href="/clip\?data=&amp;id=([0-9a-f]{20})"')


@pytest.fixture(scope="module")
def everything(site: str) -> dict[str, Answer]:
    return crawl(site)


def shown(answer: Answer) -> list[str]:
    """Ids of the clips on a page."""
    return CLIP.findall(answer.text)


def test_every_link_leads_to_something(everything: dict[str, Answer]) -> None:
    assert len(everything) > 60
    assert {at: answer.status for at, answer in everything.items() if answer.status != 200} == {}


def test_hostile_text_stays_text(everything: dict[str, Answer]) -> None:
    pages = [answer for answer in everything.values() if answer.headers["Content-Type"].startswith("text/html")]
    assert sum(HOSTILE in answer.page.text for answer in pages) > 8
    for answer in pages:
        assert not {"script", "iframe", "object", "style"} & set(answer.page.tags)
        assert not any(name.startswith("on") or name == "style" for name, _ in answer.page.attributes)
        assert {value for name, value in answer.page.attributes if name == "src" and value == "x"} == set()


def test_the_overview_counts_by_status_and_reason_and_names_runs(site: str) -> None:
    text = ask(site).page.text
    for told in ("many", str(NUM_MANY), "decode_error", "too_long", "found 900 s", "stand-ins", "best", "b/second"):
        assert told in text
    assert "scripted expert: 100 % solved" in text


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("", NUM_MANY + 5),
        ("dataset=many", NUM_MANY + 1),
        ("dataset=many&status=written", NUM_MANY),
        ("status=rejected", 1),
        ("reason=too_long", 1),
        ("caption=drawer", NUM_MANY // 3),
        ("caption=0%25+of+a_b", NUM_MANY - NUM_MANY // 3),
        ("caption=0%25%25", 0),
        ("episode=episode%2F1", NUM_MANY // 5),
        ("caption=drawer&episode=episode%2F1&dataset=many", NUM_MANY // 15),
        ("dataset=%27+or+true+--", 0),
    ],
)
def test_filters_narrow_the_list_and_its_number(site: str, query: str, total: int) -> None:
    answer = ask(f"{site}clips?{query}")
    assert f"{total} clip{'s' * (total != 1)}" in answer.page.text
    assert answer.page.tags.count("figure") == min(total, 24)


def test_pages_follow_each_other_and_hold_each_clip_once(site: str) -> None:
    at, seen = f"{site}clips?dataset=many&status=written", []
    for _ in range(3):
        answer = ask(at)
        seen += shown(answer)
        following = [link for link in answer.page.links(at) if "after=" in link]
        at = following[0] if following else ""
    assert not at
    assert seen == [clip_id(1000 + number) for number in range(NUM_MANY)]


def test_a_page_may_begin_after_any_text(site: str) -> None:
    assert shown(ask(f"{site}clips?status=written&after={clip_id(1050)}z")) == [clip_id(n) for n in range(1051, 1060)]
    assert shown(ask(f"{site}clips?after=zzz")) == []


def test_a_clip_shows_text_record_source_frames_and_place(site: str) -> None:
    text = ask(f"{site}clip?id={clip_id(1003)}").page.text
    for told in ("Open the DRAWER", '"told": 3', "episode/3", "0, 1, 2, 3", "clips/shards/many/000000.tar"):
        assert told in text
    strip = ask(f"{site}frames?id={clip_id(1003)}")
    assert (strip.status, strip.headers["Content-Type"]) == (200, "image/jpeg")


def test_what_was_turned_away_tells_why(site: str) -> None:
    text = ask(f"{site}clip?id={clip_id(5000)}").page.text
    assert "filtered: too_long found 900 s" in text
    assert ask(f"{site}frames?id={clip_id(5000)}").status == 404


def test_what_a_row_does_not_know_is_a_dash_and_a_caption_may_have_any_length(tmp_path: Path) -> None:
    level = {"status": "rejected", "reason": "unreadable_source", "level": "source"}
    rows = [{"clip_id": clip_id(1), **level}, {"clip_id": clip_id(2), **level, "caption": "x" * 1_000_000}]
    write_part(str(tmp_path), "clips", "d", "000000", rows)
    with browsing(str(tmp_path)) as site:
        pages = [ask(site + path) for path in ("clips", *(f"clip?id={clip_id(number)}" for number in (1, 2)))]
    for answer in pages:
        assert "frames - to - of -" in answer.page.text
        assert "None" not in answer.page.text
        assert len(answer.body) < 10_000


def test_an_episode_without_actions_says_so(tmp_path: Path) -> None:
    write_shard(str(tmp_path), "d", "000000", {clip_id(1): ({}, {"txt": b"", "json": b"{}"})}, "episodes")
    with browsing(str(tmp_path)) as site:
        assert "Actions: none." in ask(f"{site}episode?id={clip_id(1)}").page.text


def test_an_episode_shows_every_camera_and_a_line_for_each_dimension(site: str) -> None:
    page = ask(f"{site}episode?id={clip_id(2000)}").page
    assert page.tags.count("video") == 2
    assert page.tags.count("polyline") == 7 + 2
    assert "Actions, 0 to 3" in page.text


def test_a_damaged_array_is_told_in_its_place(site: str) -> None:
    page = ask(f"{site}episode?id={clip_id(2001)}").page
    assert "corrupt_array" in page.text
    assert page.tags.count("polyline") == 2


def test_runs_stand_side_by_side_with_what_differs(site: str) -> None:
    one = ask(f"{site}runs?run={quote('first #1')}").page
    assert one.text.count("Loss, logarithmic") == 1
    assert "train.steps" in one.text
    both = ask(f"{site}runs?run=try&run=best&run={quote('first #1')}").page
    assert both.tags.count("svg") == 2 + 1
    assert "Settings that differ" in both.text
    assert ask(f"{site}runs?run=try&run=try").page.text.count("Settings that differ") == 0


def test_settings_that_differ_far_behind_their_beginning_are_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_training(tmp_path / name, {"base": "x", "clips": [*range(200), name]})
    with browsing(str(tmp_path)) as site:
        page = ask(f"{site}runs?run=one&run=two").page
    assert "clips[0, 1, 2" in page.text
    assert "base" not in page.text.partition("Settings that differ")[2]


def test_chains_of_calvin_are_told_as_they_are_published(tmp_path: Path) -> None:
    solved = [(0, 0, True), (0, 1, True), (0, 2, False), (1, 0, False)]
    rows = [{"number": number, "position": place, "task": "t", "success": success} for number, place, success in solved]
    summary = {"success": {"t": {"n": 4, "k": 2, "low": 0.1, "high": 0.9}}, "mean": 0.5, **summarise_chains(rows)}
    write_json(str(tmp_path / "try/evaluation.json"), {"policy": "out/x", "benchmark": "calvin"})
    write_json(str(tmp_path / "try/summary.json"), summary)
    with browsing(str(tmp_path)) as site:
        assert "policy: 1.00 tasks in a row" in ask(site).page.text
        page = ask(f"{site}runs?run=try").page
    assert "1 in a row, %2 in a row, %" in page.text
    assert "policytry50500001" in page.text


def test_trainings_of_a_kind_share_a_chart(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(folder / "first #1", tmp_path / name)
    with browsing(str(tmp_path)) as site:
        page = ask(f"{site}runs?run=one&run=two").page
    assert page.text.count("Training loss") == 1
    assert page.text.count("PSNR of held-out clips by frame") == 2
    assert page.tags.count("video") == 2


def test_damage_is_told_in_its_place_on_the_overview(folder: Path, tmp_path: Path) -> None:
    for name in ("clips", "best", "try"):
        shutil.copytree(folder / name, tmp_path / name)
    (tmp_path / "clips/manifest/d/000000.parquet").write_bytes(b"no Parquet")
    (tmp_path / "try/summary.json").write_text("{")
    with browsing(str(tmp_path)) as site:
        answer = ask(site)
    assert answer.status == 200
    assert "scripted expert: 100 % solved" in answer.page.text
    assert answer.page.text.count("expected what the jobs write") == 1
    assert answer.text.count('class="fault"') == 1


def test_what_was_written_since_is_seen_when_it_is_read_again(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "clips", tmp_path / "clips")
    with browsing(str(tmp_path)) as site:
        assert f"{NUM_MANY + 5} clips" in ask(f"{site}clips").text
        write_part(str(tmp_path), "clips", "late", "000000", [{"clip_id": clip_id(9000), "status": "filtered"}])
        assert f"{NUM_MANY + 5} clips" in ask(f"{site}clips").text
        assert ask(f"{site}again", data=b"").status == 200
        assert f"{NUM_MANY + 6} clips" in ask(f"{site}clips").text


def test_all_of_it_works_on_an_object_store(s3: S3Server, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "s3/bucket/run")
    with browsing("s3://bucket/run") as site:
        for path in ("", "clips?caption=drawer", f"clip?id={clip_id(1003)}", f"episode?id={clip_id(2000)}", "runs?run=try",
                     f"frames?id={clip_id(1003)}", "try/videos/000000.mp4",
                     f"member?product=clips&id={clip_id(1003)}&name=mp4"):  # fmt: skip
            assert ask(site + path).status == 200, path
        s3.stop()
        assert ask(f"{site}member?product=clips&id={clip_id(1003)}&name=mp4").status == 502
