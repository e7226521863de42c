"""What the server lets through: ranges, tokens, hosts, names; and what a fault becomes."""

from __future__ import annotations

import logging
import shutil
import socket
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsed import ask, browsing, clip_id

from vpp.browse import dataset, ranges, server, snapshot
from vpp.browse.guard import Guard

VIDEO = f"member?product=clips&id={clip_id(1003)}&name=mp4"


def basic(password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'me:{password}'.encode()).decode()}"}


def test_a_range_is_that_part_of_the_whole(site: str) -> None:
    whole = ask(site + VIDEO)
    assert (whole.status, whole.headers["Content-Type"], whole.headers["Accept-Ranges"]) == (200, "video/mp4", "bytes")
    assert whole.body[4:8] == b"ftyp"
    size = len(whole.body)
    for asked, first, last in (
        ("0-", 0, size),
        ("5-9", 5, 10),
        ("7-", 7, size),
        ("-6", size - 6, size),
        (f"9-{size * 2}", 9, size),
    ):
        part = ask(site + VIDEO, {"Range": f"bytes={asked}"})
        assert (part.status, part.body) == (206, whole.body[first:last])
        assert part.headers["Content-Range"] == f"bytes {first}-{last - 1}/{size}"
    assert ask(site + VIDEO, {"Range": f"bytes={size}-"}).status == 416
    assert ask(site + VIDEO, {"Range": "nonsense"}).body == whole.body


def test_a_clip_is_one_read_of_its_bytes_and_a_long_file_comes_in_pieces(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(site + VIDEO).body
    reads: list[int] = []
    real = dataset.read_bytes
    monkeypatch.setattr(
        dataset, "read_bytes", lambda url, start, end: reads.append(end - start) or real(url, start, end)
    )
    assert ask(site + VIDEO).body == whole
    assert reads == [len(whole)]
    reads.clear()
    monkeypatch.setattr(ranges, "PIECE_BYTES", 1000)
    assert ask(site + VIDEO).body == whole
    assert max(reads) == 1000
    assert sum(reads) == len(whole)


def test_a_file_that_fails_on_its_way_is_cut_and_no_page_follows_its_bytes(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, real = ask(site + VIDEO).body, dataset.read_bytes
    monkeypatch.setattr(ranges, "PIECE_BYTES", 1000)
    monkeypatch.setattr(dataset, "read_bytes", lambda url, start, end: real(url, start, end - (end - start < 1000)))
    with pytest.raises(IncompleteRead) as error:
        ask(site + VIDEO)
    assert whole.startswith(error.value.partial)


def test_a_player_that_goes_away_is_no_fault(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(folder / "try", tmp_path / "run/try")
    (tmp_path / "run/try/videos/000001.mp4").write_bytes(bytes(40 << 20))
    with caplog.at_level(logging.WARNING), browsing(str(tmp_path / "run")) as site:
        port = urlsplit(site).port
        with socket.create_connection(("127.0.0.1", port)) as player:
            player.sendall(b"GET /try/videos/000001.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert player.recv(1000)
        assert ask(f"{site}style.css").status == 200
    assert caplog.records == []


@pytest.mark.parametrize(("slow", "asked"), [("find_runs", VIDEO), ("read_training_log", "runs?run=first%20%231")])
def test_what_takes_long_keeps_no_other_page_waiting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, slow: str, asked: str
) -> None:
    began, may_end, real = threading.Event(), threading.Event(), getattr(snapshot, slow)

    def read(url: str) -> object:
        began.set()
        may_end.wait(60)
        return real(url)

    monkeypatch.setattr(snapshot, slow, read)
    with browsing(str(folder)) as site, ThreadPoolExecutor(2) as visitors:
        answer = visitors.submit(ask, site + asked)
        assert began.wait(20)
        other = visitors.submit(ask, site + ("style.css" if slow == "find_runs" else VIDEO))
        try:
            assert other.result(20).status == 200
        finally:
            may_end.set()
        assert answer.result().status == 200


def test_every_answer_forbids_scripts_frames_and_other_servers(site: str) -> None:
    for path in ("", "clips", VIDEO, "style.css", "nothing", "try/videos/000000.mp4", "clip?id=x"):
        headers = ask(site + path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_members_that_are_no_video_are_not_shown_as_pages(site: str) -> None:
    text = ask(f"{site}member?product=clips&id={clip_id(1003)}&name=txt")
    assert text.headers["Content-Type"] == "application/octet-stream"
    assert text.headers["Content-Disposition"] == "attachment"


@pytest.mark.parametrize(
    "path",
    [
        "clip?id=x", "clip", f"clip?id={clip_id(9)}", f"clip?id={clip_id(1003)}&data=elsewhere", "clip?id=%27+or+1--",
        f"member?product=clips&id={clip_id(9)}&name=mp4", f"member?product=plans&id={clip_id(1003)}&name=mp4",
        "runs", "runs?run=nowhere", "runs?run=..%2Fx", "nothing", "run.json", "try/evaluation.json",
        "try/videos/000009.mp4", "nowhere/videos/000000.mp4", "first%20%231/previews/..%2Fclip.mp4",
        "try/videos/..%2F..%2Fbest%2Fvideos%2F000000.mp4", "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd",
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_so(site: str, path: str) -> None:
    answer = ask(site + path)
    assert answer.status == 404
    assert "cannot be shown" in answer.page.text


@pytest.mark.parametrize("path", [f"clips?caption={'x' * 201}", "runs?" + "&".join(f"run={n}" for n in range(7))])
def test_what_cannot_be_asked_is_told_so(site: str, path: str) -> None:
    assert ask(site + path).status == 422


def test_a_member_that_is_missing_or_lies_outside_is_a_fault_of_that_page(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    with browsing(str(tmp_path / "run")) as site:
        assert ask(f"{site}member?product=clips&id={clip_id(1003)}&name=wav").status == 422
        (tmp_path / "run/clips/shards/many/000000.tar").write_bytes(b"short")
        assert ask(site + VIDEO).status == 422
        assert "truncated_shard" in ask(f"{site}clip?id={clip_id(1003)}").page.text
        (tmp_path / "run/clips/shards/many/000000.tar").unlink()
        assert "missing_file" in ask(site + VIDEO).page.text


def test_a_link_out_of_a_run_is_not_followed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "try", tmp_path / "run/try")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "run/try/videos/000001.mp4").symlink_to(tmp_path / "secret.mp4")
    with browsing(str(tmp_path / "run")) as site:
        answer = ask(f"{site}try/videos/000001.mp4")
    assert (answer.status, b"secret\n" in answer.body) == (422, False)


def test_a_page_that_fails_tells_the_kind_of_fault_alone(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> str:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(server, "runs_page", fail)
    answer = ask(f"{site}runs?run=try")
    assert answer.status == 500
    assert "ZeroDivisionError" in answer.text
    assert "secret" not in answer.text


def test_without_the_token_nothing_is_shown(folder: Path) -> None:
    with browsing(str(folder), Guard("127.0.0.1", "très secret")) as site:
        for path in ("", VIDEO, "style.css", "nothing"):
            for headers in ({}, basic("wrong"), basic(""), {"Authorization": "Basic ?"}, {"Authorization": "Bearer x"}):
                answer = ask(site + path, headers)
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Basic")
            assert ask(site + path, basic("très secret")).status in (200, 404)
        assert ask(site, {**basic("très secret"), "Host": "robots.example"}).status == 200


def test_without_a_token_a_name_that_a_stranger_can_own_is_refused(site: str) -> None:
    port = urlsplit(site).port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "["):
        assert ask(site, {"Host": host}).status in (400, 421), host
    for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert ask(site, {"Host": host}).status == 200, host
    assert Guard("Robots.example").is_own_name({"Host": f"robots.example:{port}"})


def test_a_form_of_another_page_does_not_have_it_read_again(site: str) -> None:
    assert ask(f"{site}again", {"Origin": "http://evil.example"}, b"").status == 403
    assert ask(f"{site}again", {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, b"").status == 403
    proxied = {"Origin": "https://robots.example", "Sec-Fetch-Site": "same-origin"}
    assert ask(f"{site}again", proxied, b"").status == 200
    assert ask(f"{site}again", {"Origin": site.rstrip("/")}, b"").status == 200
    assert ask(f"{site}again").status == 404
