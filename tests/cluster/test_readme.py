"""The commands of cluster/README.md that no test can run are ones that Ray, the jobs and the shell take."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import click
import pytest
import yaml
from job_settings import SETTINGS
from ray.scripts.scripts import cli
from readme_commands import command_blocks
from running import ROOT

from runtime.settings import load_settings

README = ROOT / "cluster" / "README.md"
HEADINGS = ("## One machine", "## AWS", "## Kubernetes", "## Watch")
LINES = [
    line
    for heading in HEADINGS
    for block in command_blocks(README, heading)
    for line in block.replace("\\\n", " ").splitlines()
]
RAY_COMMANDS = [line for line in LINES if line.startswith(("ray ", "RAY_FAKE_CLUSTER=1 ray "))]
JOB_COMMANDS = [line.split(" -- ", 1)[1] for line in RAY_COMMANDS if " -- " in line]


def words(line: str) -> list[str]:
    return shlex.split(line.split(" > ")[0], comments=True)


@pytest.mark.parametrize("line", RAY_COMMANDS)
def test_ray_takes_the_command(line: str) -> None:
    _, *arguments = [word for word in words(line) if "RAY_FAKE_CLUSTER" not in word]
    command: click.Command = cli
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.commands.get(name)
        assert found, name
        command = found
    command.make_context(command.name, arguments)  # reads the options, runs nothing


@pytest.mark.parametrize("line", JOB_COMMANDS)
def test_the_job_takes_its_options(line: str) -> None:
    python, script, *arguments = words(line)
    section = Path(script).stem
    assert python == "python"
    assert (ROOT / script).is_file()
    settings_class, defaults_for = SETTINGS[section]
    assert load_settings(settings_class, section, arguments, defaults_for) != settings_class()


def test_image_and_bucket_are_all_that_has_to_be_filled_in(tmp_path: Path) -> None:
    (block,) = (block for block in command_blocks(README, "## Kubernetes") if "sed " in block)
    given = [line for line in block.splitlines() if not line.startswith(("docker ", "kubectl "))]
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "kuberay.yaml").write_text((ROOT / "cluster" / "kuberay.yaml").read_text())
    subprocess.run(["bash", "-ec", "\n".join(given)], cwd=tmp_path, check=True)
    text = (tmp_path / "out" / "kuberay.yaml").read_text()
    assert text.count("image: REGISTRY/vpp:0.1.0") == 3
    assert "s3://my-bucket/data" in text
    documents = list(yaml.safe_load_all(text))
    assert not [document for document in documents if "BUCKET" in str(document) or "IMAGE" in str(document)]


def test_every_file_is_named() -> None:
    for path in (ROOT / "cluster").iterdir():
        assert path.name == README.name or f"`{path.name}`" in README.read_text()
