"""Ego4D: windows of both passes, and a row for everything that is left out."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from layouts import write_ego4d

from pipelines.sources.ego4d import Ego4D
from schemas.episode import Episode, LeftOut
from schemas.errors import UsageError


def told(*entries: tuple[float, str]) -> dict:
    return {
        "narrations": [{"timestamp_sec": time_s, "narration_text": text} for time_s, text in entries],
        "summaries": [],
    }


def listed(source: Ego4D) -> list[Episode | LeftOut]:
    return [entry for part in source.parts() for entry in source.list_part(part)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    first = told(
        (2.0, "#C C takes a cup"), (4.0, "#C C fills it #unsure"), (8.0, "#O A man X waves"), (99.0, "#C C leaves")
    )
    first["narrations"].append(first["narrations"][0])
    second = told((6.0, "#C C drinks"))
    videos = {"a": {"redacted_intervals": [{"start_sec": 7.5, "end_sec": 8.5}]}, "b": {}, "c": {}}
    narrations = {
        "a": {"narration_pass_1": first, "narration_pass_2": second, "status": "complete"},
        "b": {"narration_pass_1": told((5.0, "#C C sits")), "status": "complete"},
        "gone": {"narration_pass_1": told((1.0, "#C C sits")), "status": "complete"},
        "hidden": {"status": "redacted"},
    }
    return write_ego4d(tmp_path, videos, narrations)


def test_every_narration_becomes_a_window_or_a_row(root: Path) -> None:
    entries = listed(Ego4D("e", str(root), window="2"))
    first = entries[0]
    assert isinstance(first, Episode)
    assert [(s.start, s.end, s.caption) for s in first.segments] == [
        (10, 30, "a person takes a cup"),
        (50, 70, "a person drinks"),
    ]
    assert Counter(left_out.reason for left_out in first.left_out) == {
        "unsure_narration": 1,
        "redacted": 1,
        "outside_video": 1,
        "duplicate_narration": 1,
    }
    assert len(first.segments) + len(first.left_out) == 6
    assert (first.num_frames, first.fps, first.redacted) == (120, 10.0, ((75, 85),))


def test_every_video_is_an_episode_or_a_row(root: Path) -> None:
    (root / "full_scale" / "b.mp4").unlink()
    rows = {entry.episode_id: entry.reason for entry in listed(Ego4D("e", str(root))) if isinstance(entry, LeftOut)}
    assert rows == {"b": "missing_file", "gone": "unknown_video", "hidden": "redacted", "c": "no_narration"}


def test_the_window_is_the_mean_gap_of_the_video(root: Path) -> None:
    narrations = {"b": {"narration_pass_1": told((2.0, "#C C sits"), (4.0, "#C C stands"), (8.0, "#C C goes"))}}
    (root / "annotations" / "narration.json").write_text(json.dumps(narrations))
    (episode, *_) = listed(Ego4D("e", str(root)))
    assert isinstance(episode, Episode)
    assert [(s.start, s.end) for s in episode.segments] == [(5, 35), (25, 55), (65, 95)]


def test_passes_and_other_people_can_be_left_out(root: Path) -> None:
    (only_second, *_) = listed(Ego4D("e", str(root), passes="2", window="2"))
    assert isinstance(only_second, Episode)
    assert [s.caption for s in only_second.segments] == ["a person drinks"]
    videos = {"a": {}}
    write_ego4d(root, videos, {"a": {"narration_pass_1": told((3.0, "#O A man X waves"))}})
    (dropped,) = listed(Ego4D("e", str(root), others="drop"))
    assert isinstance(dropped, Episode)
    assert [left_out.reason for left_out in dropped.left_out] == ["other_person"]


def test_accepted_actions_are_taken_from_fho(root: Path) -> None:
    def action(text: str, start: float, end: float, **extra: object) -> dict:
        return {"narration_text": text, "start_sec": start, "end_sec": end, "is_valid_action": True} | extra

    actions = [
        action("#C C cuts", 1.0, 4.0),
        action("#C C rests", 4.0, 5.0, is_rejected=True, is_valid_action=False),
        action("#C C looks", 5.0, 6.0, is_valid_action=False),
    ]
    hidden = {"start_sec": 9.0, "end_sec": 10.0, "redacted": True, "narrated_actions": []}
    fho = {"videos": [{"video_uid": "b", "annotated_intervals": [{"narrated_actions": actions}, hidden]}]}
    (root / "annotations" / "fho_main.json").write_text(json.dumps(fho))
    (episode, *_) = listed(Ego4D("e", str(root), annotations="fho"))
    assert isinstance(episode, Episode)
    assert [(s.start, s.end, s.caption) for s in episode.segments] == [(10, 40, "a person cuts")]
    assert [left_out.reason for left_out in episode.left_out] == ["rejected_annotation", "invalid_action", "redacted"]


def test_a_cut_file_keeps_what_stands_before_the_cut(root: Path) -> None:
    path = root / "annotations" / "narration.json"
    path.write_text(path.read_text()[:-60])
    entries = listed(Ego4D("e", str(root)))
    assert isinstance(entries[0], Episode)
    assert isinstance(entries[-1], LeftOut)
    assert entries[-1].reason == "bad_json"


def test_settings_that_cannot_be_are_the_users_mistake(root: Path, tmp_path: Path) -> None:
    for options in ({"annotations": "x"}, {"passes": "3"}, {"window": "wide"}, {"others": "maybe"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            Ego4D("e", str(root), **options)
    with pytest.raises(UsageError, match=r"ego4d\.json"):
        Ego4D("e", str(tmp_path / "nothing")).parts()


def test_memory_does_not_grow_with_the_annotation_file(tmp_path: Path) -> None:
    def write(count: int) -> Path:
        folder = tmp_path / str(count)
        write_ego4d(folder, {}, {})
        narrations = {
            f"video{n}": {
                "narration_pass_1": told(*((float(t), f"#C C does {t}") for t in range(300))),
                "status": "complete",
            }
            for n in range(count)
        }
        (folder / "annotations" / "narration.json").write_text(json.dumps(narrations))
        return folder

    peaks = []
    for count in (20, 20, 200):
        folder = write(count)
        tracemalloc.start()
        rows = sum(1 for _ in Ego4D("e", str(folder)).list_part("all"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rows == count
    assert peaks[2] < 1.5 * peaks[1]


def test_the_sample_in_the_true_shape(shared_data: Path) -> None:
    url = str(shared_data / "ego4d_shaped" / "v2")
    entries = listed(Ego4D("e", url))
    episodes = [entry for entry in entries if isinstance(entry, Episode)]
    assert [len(episode.segments) for episode in episodes] == [8, 4]
    reasons = Counter(left_out.reason for episode in episodes for left_out in episode.left_out)
    assert reasons == {"unsure_narration": 1, "redacted": 1}
    assert [entry.reason for entry in entries if isinstance(entry, LeftOut)] == ["redacted"]
    assert sum(len(e.segments) for e in listed(Ego4D("e", url, annotations="fho")) if isinstance(e, Episode)) == 3
