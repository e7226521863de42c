"""Whatever is killed and whenever: running the same command again ends with the bytes of a run that was never disturbed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from chaos.store_proxy import Ailment, Answer, StoreProxy
from layouts import write_vpp_layout
from running import product_files, run, start
from s3 import S3Server

pytestmark = pytest.mark.slow

NUM_KILLS = 10


def arguments(source: Path, output: str) -> list[str]:
    options = "#window.mode=sliding&window.stride=2&window.hop=1"
    settings = ["--text-encoder", "tiny", "--shard.clips", "16", "--shard.frames", "128"]
    return ["--sources", f"a=vpp-layout:{source}{options}", f"b=vpp-layout:{source}", "--output", output, *settings]


def end_session(leader: int) -> None:
    """Ends what is left of a killed job, process by process."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                process.kill()
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue


def ray_workers(leader: int) -> list[psutil.Process]:
    """Processes that run tasks; not Ray's agents, with which a whole node ends."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.name().startswith(("ray::Map", "ray::IDLE")):
                found.append(process)
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue
    return found


def test_ten_kills_change_no_byte(tmp_path: Path, s3: S3Server) -> None:
    source = write_vpp_layout(tmp_path / "source", num_episodes=24, num_frames=90)
    code, printed = run("preprocess", *arguments(source, str(tmp_path / "undisturbed")), cwd=tmp_path)
    assert code == 0, printed
    expected = product_files(tmp_path / "undisturbed")
    assert len(expected) > 100

    rng = random.Random(20)
    done_before = 0
    for kill in range(NUM_KILLS):
        what = ("driver", "worker", "server")[kill % 3]
        log = tmp_path / f"log-{kill}"
        process = start("preprocess", *arguments(source, "s3://bucket/out"), cwd=tmp_path, log=log)
        _wait_for_progress(process, tmp_path / "s3" / "bucket" / "out", done_before, rng.uniform(0.0, 1.5))
        if what == "driver":
            process.send_signal(signal.SIGKILL)
        elif what == "worker":
            workers = ray_workers(process.pid)
            if workers:
                rng.choice(workers).kill()
            time.sleep(1.0)
            process.send_signal(signal.SIGKILL)
        else:
            s3.stop(signal.SIGKILL)
            time.sleep(2.0)
            process.send_signal(signal.SIGKILL)
            s3.start()
        process.wait()
        end_session(process.pid)
        done_before = len(list((tmp_path / "s3" / "bucket" / "out").glob("*/manifest/*/*.parquet")))
        print(f"kill {kill}: {what}; {done_before} manifest parts there")
    code, printed = run("preprocess", *arguments(source, "s3://bucket/out"), cwd=tmp_path)
    assert code == 0, printed
    assert product_files(tmp_path / "s3" / "bucket" / "out") == expected


def _wait_for_progress(process, output: Path, done_before: int, extra_s: float) -> None:
    """Waits until the run has written something new (or ended), then a random moment more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if sum(path.suffix == ".parquet" for path in output.glob("*/manifest/*/*")) > done_before:
            break
        time.sleep(0.05)
    time.sleep(extra_s)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A source, and what a run leaves of it that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source = write_vpp_layout(folder / "source", num_episodes=8, num_frames=90)
    code, printed = run("preprocess", *arguments(source, str(folder / "out")), cwd=folder)
    assert code == 0, printed
    return source, product_files(folder / "out")


def test_a_run_rides_out_a_killed_worker(tmp_path: Path, undisturbed: tuple[Path, dict[str, str]]) -> None:
    source, expected = undisturbed
    process = start("preprocess", *arguments(source, str(tmp_path / "out")), cwd=tmp_path, log=tmp_path / "log")
    _wait_for_progress(process, tmp_path / "out", 0, 0.3)
    victims = ray_workers(process.pid)
    assert victims
    victims[0].kill()
    assert process.wait() == 0, (tmp_path / "log").read_text()
    assert product_files(tmp_path / "out") == expected


def test_a_run_rides_out_a_store_that_is_gone_for_a_while(
    tmp_path: Path, s3: S3Server, undisturbed: tuple[Path, dict[str, str]]
) -> None:
    source, expected = undisturbed
    output = tmp_path / "s3" / "bucket" / "out"
    process = start("preprocess", *arguments(source, "s3://bucket/out"), cwd=tmp_path, log=tmp_path / "log")
    _wait_for_progress(process, output, 0, 0.3)
    s3.stop(signal.SIGKILL)
    time.sleep(8.0)
    s3.start()
    assert process.wait() == 0, (tmp_path / "log").read_text()
    assert product_files(output) == expected


@pytest.mark.parametrize("answer", ["error_500", "slow_down"])
def test_a_run_rides_out_a_store_that_answers_with_errors_alone_for_a_while(
    tmp_path: Path,
    s3: S3Server,
    undisturbed: tuple[Path, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
) -> None:
    source, expected = undisturbed
    output = tmp_path / "s3" / "bucket" / "out"
    with StoreProxy(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        process = start("preprocess", *arguments(source, "s3://bucket/out"), cwd=tmp_path, log=tmp_path / "log")
        _wait_for_progress(process, output, 0, 0.3)
        proxy.fall_ill(Ailment(answer, 1.0))
        time.sleep(25.0)
        proxy.recover()
        assert process.wait() == 0, (tmp_path / "log").read_text()
    assert proxy.answered[answer] > 0
    assert product_files(output) == expected
