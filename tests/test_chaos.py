"""Chaos is what it says: each fault of the store, the plan from the seed, the full disk, what counts as damage."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ResponseStreamingError
from chaos.checks import Damage
from chaos.disturb import Injection, PhaseResult
from chaos.faults import KINDS, PHASES, by_kind, draw_faults
from chaos.full_disk import FullDisk, allow_writing, forbid_writing
from chaos.store_proxy import CODES, Ailment, StoreProxy
from chaos.table import as_text, as_values, is_well
from running import ROOT
from s3 import S3Server
from s3fs import S3FileSystem

from schemas.storage import read_bytes, write_bytes
from schemas.store_faults import is_passing_fault

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreProxy]:
    """Between this process and a server that holds `bucket/file`."""
    write_bytes("s3://bucket/file", CONTENT)
    with StoreProxy(s3.port) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.port}")
        S3FileSystem.clear_instance_cache()
        yield running


class OneTry:
    """A client of S3 that tries each request once."""

    def __init__(self, port: int) -> None:
        config = Config(
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", config=config)

    def read(self) -> bytes:
        content: bytes = self.client.get_object(Bucket="bucket", Key="file")["Body"].read()
        return content

    def status(self) -> int:
        try:
            self.read()
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200


def test_a_healthy_store_is_passed_on(proxy: StoreProxy) -> None:
    assert OneTry(proxy.port).read() == CONTENT
    write_bytes("s3://bucket/folder/other", CONTENT[:5])
    assert read_bytes("s3://bucket/folder/other", 1, 4) == CONTENT[1:4]
    assert not proxy.answered


@pytest.mark.parametrize("answer", list(CODES))
def test_an_error_is_told_as_s3_tells_it(proxy: StoreProxy, answer: str) -> None:
    one_try = OneTry(proxy.port)
    proxy.fall_ill(Ailment(answer, 1.0))  # type: ignore[arg-type]
    with pytest.raises(ClientError) as error:
        one_try.read()
    response = error.value.response
    assert (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]) == CODES[answer][:2]
    assert is_passing_fault(error.value)
    proxy.recover()
    assert one_try.read() == CONTENT
    assert proxy.answered == {answer: 1}


def test_half_of_a_body_comes_where_all_was_announced(proxy: StoreProxy) -> None:
    body = OneTry(proxy.port).client.get_object
    proxy.fall_ill(Ailment("half_read", 1.0))
    answer = body(Bucket="bucket", Key="file")
    assert answer["ContentLength"] == len(CONTENT)
    with pytest.raises(ResponseStreamingError, match=rf"IncompleteRead\({len(CONTENT) // 2} bytes read"):
        answer["Body"].read()
    assert proxy.answered == {"half_read": 1}


def test_a_lost_answer_is_of_something_that_was_done(proxy: StoreProxy, tmp_path: Path) -> None:
    proxy.fall_ill(Ailment("lost_answer", 1.0))
    with pytest.raises(ConnectionClosedError):
        OneTry(proxy.port).client.delete_object(Bucket="bucket", Key="file")
    assert not (tmp_path / "s3" / "bucket" / "file").exists()


def test_a_share_of_the_requests_is_hit_and_the_seed_says_which(proxy: StoreProxy) -> None:
    one_try = OneTry(proxy.port)

    def statuses() -> list[int]:
        proxy.fall_ill(Ailment("error_500", 0.5, seed=7))
        return [one_try.status() for _ in range(20)]

    first = statuses()
    assert set(first) == {200, 500}
    assert statuses() == first


def test_a_server_that_is_gone_gives_no_answer(proxy: StoreProxy, s3: S3Server) -> None:
    one_try = OneTry(proxy.port)
    s3.stop()
    with pytest.raises(ConnectionClosedError):
        one_try.read()
    s3.start()
    assert one_try.read() == CONTENT


def test_the_seed_decides_the_faults_and_every_kind_is_among_them() -> None:
    plans = {(seed, phase): draw_faults(seed, phase, 13) for seed in range(3) for phase in PHASES}
    assert plans == {(seed, phase): draw_faults(seed, phase, 13) for seed in range(3) for phase in PHASES}
    assert len({str(plan) for plan in plans.values()}) == len(plans)
    for plan in plans.values():
        assert min(by_kind(plan).values()) == 1
        assert [fault.number for fault in plan] == list(range(13))
        assert all(10 <= fault.duration_s <= 30 for fault in plan if fault.kind == "server")
        assert all((fault.share > 0) == (fault.kind in ("half_read", "lost_answer", *CODES)) for fault in plan)


def test_a_full_disk_takes_nothing_more_until_it_is_freed() -> None:
    with FullDisk() as disk:
        if disk.why_not:
            pytest.skip(disk.why_not)
        disk.fill()
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (disk.folder / "more").write_bytes(bytes(10))
        disk.free()
        (disk.folder / "more").write_bytes(bytes(10))
    assert not disk.folder.exists()


def test_a_folder_in_place_of_the_disk_goes_with_what_is_left_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError("mount")

    monkeypatch.setattr(subprocess, "run", refuse)
    with FullDisk() as disk:
        (disk.folder / "file").write_bytes(bytes(10))
        (disk.folder / "latest").symlink_to("file")
        disk.clear()
    assert not disk.folder.exists()


WRITER = """
import sys
for line in sys.stdin:
    try:
        with open(line.strip(), "w") as handle:
            handle.write("x")
        print("written", flush=True)
    except OSError as error:
        print("refused", flush=True)
"""


@pytest.mark.skipif(not FullDisk.can_limit, reason="this system limits no running process")
def test_a_limit_on_files_stands_for_a_full_disk(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as writer:
        assert writer.stdin
        assert writer.stdout
        answers = []
        for change in (lambda _: None, forbid_writing, allow_writing):
            change([psutil.Process(writer.pid)])
            writer.stdin.write(f"{tmp_path / 'file'}\n")
            answers.append(writer.stdout.readline().strip())
        writer.stdin.close()
    assert answers == ["written", "refused", "written"]


def test_the_table_counts_faults_and_any_damage_is_not_well() -> None:
    faults = draw_faults(0, "stage1", len(KINDS))
    injections = [Injection(fault, 0, 1.0, 2, "it", exit_code=fault.number % 2) for fault in faults]
    result = PhaseResult("stage1", injections, {"full_disk": "no right"}, runs=1, commands=3)
    assert is_well([result])
    text = as_text([result])
    assert "not injected in stage1: full disk for spilled and staged files: no right" in text
    assert ["all", str(len(KINDS)), str(len(KINDS))] in [line.split() for line in text.splitlines()]
    assert as_values(0, [result])["faults"] == len(KINDS)
    result.damage.add(Damage(lost=2, notes=["two are gone"]))
    assert not is_well([result])
    assert "stage1: two are gone" in as_text([result])
    assert as_values(0, [result])["lost"] == 2


@pytest.mark.slow
def test_a_few_faults_change_nothing(tmp_path: Path) -> None:
    pytest.importorskip("metaworld")
    command = [sys.executable, "-m", "chaos", "--output", str(tmp_path / "out"), "--faults", "1", "--size", "3"]
    command += ["--training-steps", "9"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "chaos.json").read_text())
    assert (found["is_well"], found["faults"]) == (True, len(PHASES))
    assert "all is well" in done.stdout
