"""Ego4D: windows of both passes, and a row for everything that is left out."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest
from layouts import write_ego4d
from videos import read_number

from pipelines.sources import ego4d
from pipelines.sources.ego4d import Ego4D
from schemas.episode import Episode, LeftOut
from schemas.errors import UsageError


def told(*entries: tuple[float, str]) -> dict[str, Any]:
    narrations = [{"timestamp_sec": time_s, "narration_text": text} for time_s, text in entries]
    return {"narrations": narrations, "summaries": []}


def listed(source: Ego4D) -> list[Episode | LeftOut]:
    return [entry for part in source.parts() for entry in source.list_part(part)]


def first_episode(root: Path, **options: str) -> Episode:
    return next(entry for entry in listed(Ego4D("e", str(root), **options)) if isinstance(entry, Episode))


def rows(root: Path, **options: str) -> dict[str, str]:
    entries = listed(Ego4D("e", str(root), **options))
    return {entry.episode_id: f"{entry.status}:{entry.reason}" for entry in entries if isinstance(entry, LeftOut)}


def write_narrations(root: Path, narrations: Any) -> None:
    (root / "annotations" / "narration.json").write_text(json.dumps(narrations))


def change_metadata(root: Path, **changes: Any) -> None:
    """Replaces top-level values of `ego4d.json`."""
    path = root / "ego4d.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    first = told(
        (2.0, "#C C takes a cup"), (4.0, "#C C fills it #unsure"), (8.0, "#O A man X waves"), (99.0, "#C C leaves")
    )
    second = told((6.0, "#C C drinks"), (2.001, "#C C takes a cup"))
    videos = {"a": {"redacted_intervals": [{"start_sec": 7.5, "end_sec": 8.5}]}, "b": {}, "c": {}}
    narrations = {
        "a": {"narration_pass_1": first, "narration_pass_2": second, "status": "complete"},
        "b": {"narration_pass_1": told((5.0, "#C C sits")), "status": "complete"},
        "gone": {"narration_pass_1": told((1.0, "#C C sits")), "status": "complete"},
        "hidden": {"status": "redacted"},
    }
    return write_ego4d(tmp_path / "v2", videos, narrations)


def test_every_narration_becomes_a_window_or_a_row(root: Path) -> None:
    episode = first_episode(root, window_s="2")
    assert [(s.start, s.end, s.caption) for s in episode.segments] == [
        (10, 30, "a person takes a cup"),
        (50, 70, "a person drinks"),
    ]
    assert Counter(left_out.reason for left_out in episode.left_out) == {
        "unsure_narration": 1,
        "redacted": 1,
        "outside_video": 1,
        "duplicate_narration": 1,
    }
    assert len(episode.segments) + len(episode.left_out) == 6
    assert {(row.status, row.episode_id, row.split, row.source_url) for row in episode.left_out} == {
        ("filtered", "a", "train", episode.source_url)
    }
    assert (episode.num_frames, episode.fps, episode.redacted) == (120, 10.0, ((75, 85),))
    assert (episode.action_dim, episode.cameras, episode.split) == (0, ("ego",), "train")


def test_every_video_is_an_episode_or_a_row(root: Path) -> None:
    (root / "full_scale" / "b.mp4").unlink()
    assert rows(root) == {
        "b": "rejected:missing_file",
        "gone": "rejected:unknown_video",
        "hidden": "filtered:redacted",
        "c": "filtered:no_narration",
    }


def test_narrations_that_are_not_complete_or_not_there_are_no_narrations(root: Path) -> None:
    unfinished = {"narration_pass_1": told((5.0, "#C C sits")), "status": "in_progress"}
    write_narrations(root, {"a": unfinished, "b": {"status": "complete"}, "c": {"narration_pass_1": told()}})
    assert rows(root) == dict.fromkeys("abc", "filtered:no_narration")


def test_the_frames_of_a_window_are_read_from_the_video(root: Path) -> None:
    source = Ego4D("e", str(root), window_s="2")
    episode = first_episode(root, window_s="2")
    segment = episode.segments[0]
    read = source.frames(episode, "ego", range(segment.start, segment.end, 5))
    assert [(index, read_number(frame.to_ndarray(format="rgb24"))) for index, frame in read] == [
        (10, 10), (15, 15), (20, 20), (25, 25),
    ]  # fmt: skip
    assert source.trajectory(episode, 10, 30) is None
    assert source.latents(episode, "ego") is None


@pytest.mark.parametrize(
    ("options", "windows"),
    [
        ({}, [(5, 35), (25, 55), (65, 95)]),
        ({"window_s": "egovlp", "min_window_s": "0.1"}, [(17, 23), (37, 43), (77, 83)]),
        ({"window_s": "egovlp", "min_window_s": "1"}, [(15, 25), (35, 45), (75, 85)]),
        ({"window_s": "0.4"}, [(18, 22), (38, 42), (78, 82)]),
        ({"window_s": "100"}, [(0, 120), (0, 120), (0, 120)]),
    ],
)
def test_the_width_of_the_window_is_a_rule_or_a_number(root: Path, options: dict, windows: list) -> None:
    # out of order, as in the true file; what lies outside the video does not widen the windows
    write_narrations(
        root,
        {"b": {"narration_pass_1": told((4.0, "#C C stands"), (2.0, "#C C sits"), (8.0, "#C C goes"), (900.0, "#C"))}},
    )
    assert [(s.start, s.end) for s in first_episode(root, **options).segments] == windows


def test_a_single_narration_takes_the_mean_gap_of_all_videos(root: Path) -> None:
    write_narrations(root, {"b": {"narration_pass_1": told((5.0, "#C C sits"))}})
    (segment,) = first_episode(root).segments
    assert (segment.start, segment.end) == (26, 74)


def test_segments_come_by_start_then_pass_then_time_and_text(root: Path) -> None:
    first = told((6.0, "#C C z"), (1.0, "#C C y"), (1.0, "#C C x"))
    write_narrations(
        root, {"b": {"narration_pass_2": told((1.0, "#C C a"), (0.2, "#C C q")), "narration_pass_1": first}}
    )
    segments = first_episode(root, window_s="4").segments
    assert [s.caption[-1] for s in segments] == ["x", "y", "q", "a", "z"]


def test_passes_and_other_people_can_be_left_out(root: Path) -> None:
    assert [s.caption for s in first_episode(root, passes="2", window_s="1").segments] == [
        "a person takes a cup",
        "a person drinks",
    ]
    write_narrations(root, {"b": {"narration_pass_1": told((3.0, "#O A man X waves"))}})
    assert [s.caption for s in first_episode(root).segments] == ["A man waves"]
    assert [left_out.reason for left_out in first_episode(root, others="drop").left_out] == ["other_person"]


def test_summaries_tell_ranges(root: Path) -> None:
    summary = {"start_sec": 1.0, "end_sec": 90.0, "summary_text": "#Summary C cooked."}
    write_narrations(root, {"b": {"narration_pass_1": {"narrations": [], "summaries": [summary, summary]}}})
    episode = first_episode(root, annotations="summaries")
    assert [(s.start, s.end, s.caption) for s in episode.segments] == [(10, 120, "a person cooked.")]
    assert [left_out.reason for left_out in episode.left_out] == ["duplicate_narration"]


def test_accepted_actions_are_taken_from_fho(root: Path) -> None:
    def action(text: str, start: float, end: float, **extra: object) -> dict:
        return {"narration_text": text, "start_sec": start, "end_sec": end, "is_valid_action": True} | extra

    actions = [
        action("#C C cuts", 1.0, 4.0),
        action("#C C rests", 4.0, 5.0, is_rejected=True, is_valid_action=False),
        action("#C C looks", 5.0, 6.0, is_valid_action=False),
        action("#C C turns", 5.0, 6.0, is_invalid_annotation=True),
        action("#C C flies", 50.0, 60.0),
    ]
    hidden = {"start_sec": 9.0, "end_sec": 10.0, "redacted": True, "narrated_actions": []}
    fho = {"videos": [{"video_uid": "b", "annotated_intervals": [{"narrated_actions": actions}, hidden]}]}
    (root / "annotations" / "fho_main.json").write_text(json.dumps(fho))
    episode = first_episode(root, annotations="fho")
    assert [(s.start, s.end, s.caption) for s in episode.segments] == [(10, 40, "a person cuts")]
    assert [left_out.reason for left_out in episode.left_out] == [
        "rejected_annotation", "invalid_action", "invalid_action", "outside_video", "redacted",
    ]  # fmt: skip
    assert [(left_out.start, left_out.end) for left_out in episode.left_out][-1] == (90, 100)


def test_a_redacted_component_counts_as_a_redacted_interval(root: Path) -> None:
    videos = json.loads((root / "ego4d.json").read_text())["videos"]
    videos[1]["video_components"] = [
        {"redacted": False, "canonical_video_start_sec": 0.0, "canonical_video_end_sec": 4.05},
        {"redacted": True, "canonical_video_start_sec": 4.05, "canonical_video_end_sec": 12.0},
    ]
    change_metadata(root, videos=videos)
    write_narrations(root, {"b": {"narration_pass_1": told((2.0, "#C C sits"), (4.0, "#C C stands"))}})
    episode = first_episode(root, window_s="1")
    assert episode.redacted == ((40, 120),)
    assert [s.caption for s in episode.segments] == ["a person sits"]


def test_clips_show_their_part_of_the_video_and_no_narration_twice(root: Path) -> None:
    def clip(uid: str, start_s: float, num_frames: int) -> dict:
        return {
            "clip_uid": uid,
            "video_uid": "a",
            "video_start_sec": start_s,
            "clip_metadata": {"fps": 10.0, "num_frames": num_frames},
        }

    clips = [clip("late", 5.0, 40), clip("early", 1.0, 60), clip("inner", 1.5, 10), clip("lost", 0.0, 120)]
    change_metadata(root, clips=[*clips, clips[0], clip("other", 0.0, 10) | {"video_uid": "nobody"}])
    for name in ("late", "early", "inner"):
        path = root / "clips" / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    entries = listed(Ego4D("e", str(root), window_s="2", videos="clips"))
    episodes = {entry.episode_id: entry for entry in entries if isinstance(entry, Episode)}
    assert [(s.start, s.end, s.caption) for s in episodes["early"].segments] == [
        (0, 20, "a person takes a cup"),
        (40, 60, "a person drinks"),
    ]
    assert [row.reason for row in episodes["early"].left_out] == [
        "unsure_narration",
        "outside_video",
        "duplicate_narration",
    ]
    assert [row.reason for row in episodes["late"].left_out] == ["redacted"]
    assert episodes["late"].redacted == ((25, 35),)
    assert episodes["late"].source_url.endswith("/clips/late.mp4")
    assert rows(root, window_s="2", videos="clips") == {
        "other": "rejected:unknown_video",
        "lost": "rejected:missing_file",
        "inner": "filtered:no_narration",
        "b": "filtered:no_clip",
        "gone": "rejected:unknown_video",
        "hidden": "filtered:redacted",
        "c": "filtered:no_narration",
    }


@pytest.mark.parametrize("value", [None, "2.0", True, 1e300, 10**12, -(10**9)])
def test_a_malformed_narration_costs_only_itself(root: Path, value: object) -> None:
    pass_1 = told((2.0, "#C C sits"), (4.0, "#C C stands"), (5.0, "#C"))
    pass_1["narrations"] += [
        {"timestamp_sec": value, "narration_text": "#C C x"},
        {"timestamp_sec": 3.0, "narration_text": None},
    ]
    write_narrations(root, {"b": {"narration_pass_1": pass_1, "narration_pass_2": None}})
    episode = first_episode(root)
    assert [s.caption for s in episode.segments] == ["a person sits", "a person stands"]
    assert [(row.status, row.reason) for row in episode.left_out] == [
        ("rejected", "bad_annotation"),
        ("rejected", "bad_annotation"),
        ("filtered", "no_caption"),
    ]


@pytest.mark.parametrize(
    "entry", [None, [], "x", {"narration_pass_1": []}, {"narration_pass_1": {"narrations": {"a": 1}}}]
)
def test_a_malformed_entry_costs_only_its_video(root: Path, entry: object) -> None:
    write_narrations(root, {"a": entry, "b": {"narration_pass_1": told((5.0, "#C C sits"))}})
    assert first_episode(root).episode_id == "b"
    assert rows(root) == {"a": "rejected:bad_annotation", "c": "filtered:no_narration"}


@pytest.mark.parametrize(
    "metadata",
    [None, [], {"fps": 0, "num_frames": 10}, {"fps": "30", "num_frames": 10}, {"fps": 30.0, "num_frames": None}],
)
def test_malformed_metadata_costs_only_its_video(root: Path, metadata: object) -> None:
    videos = json.loads((root / "ego4d.json").read_text())["videos"]
    videos[0]["video_metadata"] = metadata
    change_metadata(root, videos=[*videos, "no object", videos[1]])
    assert first_episode(root).episode_id == "b"
    entries = listed(Ego4D("e", str(root)))
    assert [(e.episode_id, e.reason) for e in entries if isinstance(e, LeftOut)] == [
        ("a", "bad_annotation"),
        ("", "bad_annotation"),
        ("b", "duplicate_video"),
        ("gone", "unknown_video"),
        ("hidden", "redacted"),
        ("c", "no_narration"),
    ]


@pytest.mark.parametrize("uid", ["../secret", "/etc/passwd", "a/b", "..", "", "a\\b", "file://x"])
def test_a_uid_that_is_no_plain_name_opens_nothing(root: Path, uid: str) -> None:
    metadata = {"fps": 10.0, "num_frames": 120}
    change_metadata(root, videos=[{"video_uid": uid, "video_metadata": metadata}])
    write_narrations(root, {uid: {"narration_pass_1": told((5.0, "#C C sits"))}})
    entries = listed(Ego4D("e", str(root)))
    assert [(entry.status, entry.reason) for entry in entries if isinstance(entry, LeftOut)] == [
        ("rejected", "bad_uid")
    ] * 2
    assert {entry.source_url for entry in entries} == {str(root / "full_scale")}


def test_a_cut_file_keeps_what_stands_before_the_cut(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "annotations" / "narration.json"
    path.write_text(path.read_text()[:-60])
    entries = listed(Ego4D("e", str(root)))
    assert isinstance(entries[0], Episode)
    assert isinstance(entries[-1], LeftOut)
    assert entries[-1].reason == "bad_json"
    monkeypatch.setattr(ego4d, "BYTES_PER_PART", 200)
    reasons = Counter(entry.reason for entry in listed(Ego4D("e", str(root))) if isinstance(entry, LeftOut))
    assert reasons["bad_json"] == 1


def test_parts_share_the_videos_between_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Ego4D("e", str(root))
    assert source.parts() == ["000-of-001"]
    together = listed(source)
    monkeypatch.setattr(ego4d, "BYTES_PER_PART", 300)
    shares = [list(source.list_part(part)) for part in source.parts()]
    assert sum(1 for share in shares if share) > 1
    assert sorted(map(repr, together)) == sorted(repr(entry) for share in shares for entry in share)


def test_any_store_lists_the_same(root: Path) -> None:
    fsspec.filesystem("memory").put(f"{root}/", "/ego4d-test/", recursive=True)
    there = [
        (entry.episode_id, entry.segments if isinstance(entry, Episode) else entry.reason)
        for entry in listed(Ego4D("e", "memory://ego4d-test"))
    ]
    fsspec.filesystem("memory").rm("/ego4d-test", recursive=True)
    here = [
        (entry.episode_id, entry.segments if isinstance(entry, Episode) else entry.reason)
        for entry in listed(Ego4D("e", str(root)))
    ]
    assert there == here


@pytest.mark.parametrize(
    "options",
    [
        {"annotations": "x"},
        {"passes": "3"},
        {"others": "maybe"},
        {"videos": "../elsewhere"},
        *({"window_s": value} for value in ("wide", "0", "-1", "nan", "inf")),
        {"min_window_s": "0"},
    ],
)
def test_settings_that_cannot_be_are_the_users_mistake(root: Path, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Ego4D("e", str(root), **options)


def test_a_folder_without_the_files_is_the_users_mistake(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ego4d\.json"):
        Ego4D("e", str(tmp_path / "nothing")).parts()
    with pytest.raises(UsageError, match=r"fho_main\.json"):
        Ego4D("e", str(root), annotations="fho").parts()
    with pytest.raises(UsageError, match="video_540ss"):
        Ego4D("e", str(root), videos="video_540ss").parts()


def test_memory_is_that_of_one_video_not_of_the_file(tmp_path: Path) -> None:
    write_ego4d(tmp_path, {}, {})
    (tmp_path / "full_scale").mkdir()
    count = 300
    uids = [f"video{number}" for number in range(count)]
    videos = [{"video_uid": uid, "video_metadata": {"fps": 30.0, "num_frames": 10**6}} for uid in uids]
    change_metadata(tmp_path, videos=videos)
    told_twice = json.dumps(
        {
            "narration_pass_1": told(*((float(time_s), f"#C C does {time_s}") for time_s in range(10))),
            "narration_pass_2": told(*((float(time_s), "#C C " + "waits " * 40) for time_s in range(400))),
            "status": "complete",
        }
    )
    for uid in uids:
        (tmp_path / "full_scale" / f"{uid}.mp4").write_bytes(b"")
    path = tmp_path / "annotations" / "narration.json"
    path.write_text("{" + ",".join(f'"{uid}": {told_twice}' for uid in uids) + "}")
    tracemalloc.start()
    source = Ego4D("e", str(tmp_path), passes="1")
    num_segments = sum(
        len(e.segments) for part in source.parts() for e in source.list_part(part) if isinstance(e, Episode)
    )
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_segments == 10 * count
    assert path.stat().st_size > 30e6
    assert peak_bytes < path.stat().st_size / 10


def test_the_sample_in_the_true_shape(shared_data: Path) -> None:
    url = str(shared_data / "ego4d_shaped" / "v2")
    entries = listed(Ego4D("e", url))
    episodes = [entry for entry in entries if isinstance(entry, Episode)]
    assert [len(episode.segments) for episode in episodes] == [8, 4]
    reasons = Counter(left_out.reason for episode in episodes for left_out in episode.left_out)
    assert reasons == {"unsure_narration": 1, "redacted": 1}
    assert [entry.reason for entry in entries if isinstance(entry, LeftOut)] == ["redacted"]
    assert episodes[0].segments[0].caption == "a person extends the hand over the table"
    assert sum(len(e.segments) for e in listed(Ego4D("e", url, annotations="fho")) if isinstance(e, Episode)) == 3
    assert sum(len(e.segments) for e in listed(Ego4D("e", url, annotations="summaries")) if isinstance(e, Episode)) == 2
