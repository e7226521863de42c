"""Nothing under cluster/ holds a secret or lets strangers in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from running import ROOT

FILES = sorted(path for path in (ROOT / "cluster").iterdir() if path.is_file())
SECRETS = {
    "AWS key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "AWS secret": r"(?i)aws_secret_access_key",
    "private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "token": r"\b[0-9a-f]{32,}\b|RAY_AUTH_TOKEN=\w",
    "account": r"\b\d{12}\b",
}


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_no_file_holds_a_secret(path: Path) -> None:
    text = path.read_text()
    found = {what: match.group() for what, pattern in SECRETS.items() if (match := re.search(pattern, text))}
    assert not found


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_no_file_binds_to_all_addresses_or_turns_tokens_off(path: Path) -> None:
    text = path.read_text()
    assert "0.0.0.0" not in text
    assert not re.search(r"RAY_AUTH_MODE\W+disabled|mode: disabled", text)
