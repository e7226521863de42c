"""The site of docs/: pages, README files and the API from docstrings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_site_is_made_without_a_warning_and_has_every_page_and_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(tmp_path)]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert made.returncode == 0, made.stdout
    for page in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / f"{page.stem}.html").is_file()
    modules = [
        path for package in ("schemas", "runtime", "pipelines", "vpp") for path in (ROOT / package).rglob("*.py")
    ]
    for module in modules:
        if module.name != "__init__.py":
            name = ".".join(module.relative_to(ROOT).with_suffix("").parts)
            assert (tmp_path / "api" / name.partition(".")[0] / f"{name}.html").is_file(), name
