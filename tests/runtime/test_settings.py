"""Settings come from the file, then from the command line; what they do not know is refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from schemas.errors import UsageError


@dataclass(frozen=True)
class Inner:
    size: int = 1
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size: expected 0 or more, found {self.size}")


@dataclass(frozen=True)
class Settings:
    name: str = ""
    rate: float = 1.0
    names: tuple[str, ...] = ()
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)


def load(tmp_path: Path, text: str, *arguments: str) -> Settings:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return load_settings(Settings, "job", ["--config", str(path), *arguments])


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    text = "job:\n  name: file\n  rate: 2\n  names: [x, y]\n  inner: {size: 5, kind: b}\nother: {}\n"
    assert load(tmp_path, text, "--name", "line", "--inner.size", "7") == Settings(
        "line", 2, ("x", "y"), None, Inner(7, "b")
    )
    assert load(tmp_path, "other: {}\n") == Settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job: {nam: x}", "unknown setting nam; known: name, rate"),
        ("job: {inner: {sice: 2}}", "unknown setting sice"),
        ("job: {rate: fast}", "job.rate: expected float, found 'fast'"),
        ("job: {inner: {kind: c}}", "expected one of a, b, found 'c'"),
        ("job: {inner: {size: -1}}", "size: expected 0 or more"),
        ("job: {names: x}", "job.names"),
        ("job: {limit: many}", "job.limit"),
        ("job: {inner: 3}", "expected settings by name"),
        ("job: [", "not valid YAML"),
        ("- job", "expected one section a job"),
        ("jobb: {}", "unknown section 'jobb'; this job reads 'job'"),
    ],
)
def test_a_mistake_in_the_file_names_the_place(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        load(tmp_path, text)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_job_ends_with_2_for_the_users_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise UsageError("expected x, found y")

    with pytest.raises(SystemExit) as ended:
        run_job(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: expected x, found y\n"


def test_an_interrupted_job_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_job(main)
    assert ended.value.code == 130
    assert "the same command continues" in capsys.readouterr().err


def test_a_job_that_a_passing_fault_ends_says_how_to_go_on_and_any_other_error_is_shown_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lose_the_store() -> int:
        raise ConnectionResetError("the store\nis gone")

    with pytest.raises(SystemExit) as ended:
        run_job(lose_the_store)
    assert ended.value.code == 1
    told = "stopped: ConnectionResetError: the store is gone; what is done is kept, the same command continues\n"
    assert capsys.readouterr().err == told

    def err() -> int:
        raise TypeError("a mistake of ours")

    with pytest.raises(TypeError):
        run_job(err)


def test_settings_can_be_written_down() -> None:
    assert to_mapping(Settings("n", names=("a",)))["inner"] == {"size": 1, "kind": "a"}
