"""How a job of `jobs/` starts and ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from runtime.log_lines import is_structured, start_logging
from schemas.errors import UsageError
from schemas.store_faults import is_passing_fault


def run_job(main: Callable[[], int | None]) -> None:
    """Runs a job and exits: 0 done, 1 failed (the same command continues), 2 the user's mistake, 130 Ctrl-C."""
    try:
        start_logging(job=Path(sys.argv[0]).stem)
        code = main() or 0
    except UsageError as error:
        _say(logging.ERROR, f"error: {error}")
        code = 2
    except KeyboardInterrupt:
        _say(logging.WARNING, "interrupted: what is done is kept, the same command continues")
        code = 130
    except Exception as error:
        if not is_passing_fault(error):
            raise
        words = " ".join(str(error).split())
        _say(
            logging.ERROR,
            f"stopped: {type(error).__name__}: {words}; what is done is kept, the same command continues",
        )
        code = 1
    sys.exit(code)


def _say(level: int, message: str) -> None:
    """The last words: on a terminal nothing but them."""
    if logging.getLogger().handlers and is_structured():
        logging.log(level, message)
    else:
        sys.stderr.write(f"{message}\n")
