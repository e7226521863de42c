"""What a job logs: text for people, or with `VPP_LOG=json` one JSON object a line for programs, both on stderr.

A line has `time` (UTC, ISO 8601), `level`, `job`, `message`, and `fields`: plain values that a program may want without
reading the message, given as `extra={"fields": {...}}`. Progress bars become such lines too. What a job came to is
printed on stdout in either form.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from tqdm import tqdm

from schemas.errors import UsageError

LOG_VARIABLE = "VPP_LOG"
_BAR_LOG = logging.getLogger("progress")

# While they are imported these two warn of packages that nothing here needs (kernels, torchvision).
for _name in ("bitsandbytes.backends.cpu.ops", "transformers.utils.import_utils"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def is_structured() -> bool:
    """Whether lines are JSON.

    Raises:
        UsageError: If the variable is neither empty, `text` nor `json`.
    """
    value = os.environ.get(LOG_VARIABLE) or "text"
    if value not in ("text", "json"):
        raise UsageError(f"{LOG_VARIABLE}: expected text or json, found {value!r}")
    return value == "json"


def start_logging(job: str) -> None:
    """Sets up the log of a process.

    Args:
        job: Name that its lines carry.

    Raises:
        UsageError: If `VPP_LOG` has another value than it may have.
    """
    if not is_structured():
        form = "%(asctime)s %(levelname)s %(message)s"
        logging.basicConfig(level=logging.INFO, format=form, datefmt="%H:%M:%S", stream=sys.stderr)
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(job))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, trace: logging.critical("%s", error, exc_info=(kind, error, trace))


class _JsonLines(logging.Formatter):
    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = job

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "job": self._job,
            "message": record.getMessage(),
            "fields": fields,
        }
        return json.dumps(line, default=str)


class _LoggedBar(tqdm):  # type: ignore[misc]
    """A progress bar that is a line of the log each time it would be drawn."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Logs how far it is."""
        fields = {name: self.format_dict[name] for name in ("prefix", "n", "total", "rate", "elapsed", "postfix")}
        fields["stage"] = fields.pop("prefix").removesuffix(": ")
        done = f"{self.n}" if self.total is None else f"{self.n} of {self.total}"
        _BAR_LOG.info("%s: %s %s", fields["stage"], done, self.unit.strip(), extra={"fields": fields})
        return True

    @classmethod
    def write(cls, s: str, *_: Any, **__: Any) -> None:
        """Logs what is to stand beside the bar."""
        _BAR_LOG.info("%s", s)


def progress_bar(name: str, total: int | None, unit: str, initial: int = 0) -> Any:
    """A progress bar: drawn on a terminal, in a log file a line every ten seconds.

    Args:
        name: Of what is done.
        total: How many units there are; None if that is not known.
        unit: Their name.
        initial: How many were done before.
    """
    quiet = is_structured() or not sys.stderr.isatty()
    kind, stream = (_LoggedBar, io.StringIO()) if is_structured() else (tqdm, sys.stderr)
    return kind(
        desc=name, total=total, unit=f" {unit}", initial=initial, file=stream,
        mininterval=10 if quiet else 0.2, dynamic_ncols=not quiet,
    )  # fmt: skip
