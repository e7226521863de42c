"""What a training run tells about itself before it begins: `<run>/run.json`."""

from __future__ import annotations

import json
from typing import Any

from runtime.settings import commit, to_mapping
from schemas.storage import exists, join, read_bytes, write_bytes
from vpp.train.engine import check_same


def write_run_record(url: str, settings: Any, fixed: dict[str, Any]) -> None:
    """Writes the resolved settings, the commit, and what must stay the same for the whole run.

    Args:
        url: The run.
        settings: A dataclass.
        fixed: Plain values.

    Raises:
        UsageError: If the run was begun with other fixed values.
    """
    record = join(url, "run.json")
    if exists(record):
        check_same(fixed, json.loads(read_bytes(record))["fixed"], url)
    content = {"settings": to_mapping(settings), "fixed": fixed, "commit": commit()}
    write_bytes(record, (json.dumps(content, indent=1) + "\n").encode())
