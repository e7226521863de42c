"""cluster/Dockerfile installs what Makefile installs, by the constraints, as a user without rights, from a small context."""

from __future__ import annotations

import re
import tomllib

from pathspec import PathSpec
from running import ROOT

DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text()
INSTALLS = re.findall(r"pip install ([^\n&]+)", DOCKERFILE.replace("\\\n", ""))


def test_every_install_is_by_the_constraints_and_torch_comes_first_as_in_the_makefile() -> None:
    makefile = re.findall(r"pip install ([^\n]+)", (ROOT / "Makefile").read_text())
    assert len(INSTALLS) == 2
    for ours, theirs in zip(INSTALLS, makefile[:2], strict=True):  # what comes after is for tests alone
        assert re.sub(r"\[.*\]", "[]", ours).strip() == re.sub(r"\[.*\]", "[]", theirs).strip()


def test_the_extras_exist() -> None:
    extras = re.search(r"\[(.+)\]", INSTALLS[1])
    assert extras
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert set(extras.group(1).split(",")) <= set(tomllib.load(file)["project"]["optional-dependencies"])


def test_base_is_pinned_and_the_user_has_no_rights() -> None:
    assert re.search(r"^FROM python:3\.11\.\d+-slim-\w+$", DOCKERFILE, re.M)
    users = re.findall(r"^USER (\w+)$", DOCKERFILE, re.M)
    assert users == ["ray"]
    assert DOCKERFILE.index("USER ray") < DOCKERFILE.index("pip install")


def test_the_context_holds_what_is_installed_and_nothing_large() -> None:
    ignored = PathSpec.from_lines("gitignore", (ROOT / ".dockerignore").read_text().splitlines())
    for path in ("pyproject.toml", "constraints.txt", "README.md", "vpp/policy/policy.py", "jobs/stage1.py"):
        assert not ignored.match_file(path), path
        assert (ROOT / path).is_file()
    for path in (
        ".venv/bin/python",
        "out/demo/clips/x.tar",
        ".git/config",
        "tests/running.py",
        "vpp/__pycache__/a.pyc",
    ):
        assert ignored.match_file(path), path
