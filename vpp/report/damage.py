"""What is wrong with a run's files becomes one line that names the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from schemas.errors import UsageError, VPPError


@contextlib.contextmanager
def naming_damage(where: str) -> Iterator[None]:
    """Raises what values of another kind lead to in the block as a `UsageError`; a failing store stays what it is.

    Args:
        where: The run, or the folder of all.
    """
    try:
        yield
    except VPPError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise  # Arrow tells damage by an OSError of its own, without a number
        found = f"found something else: {' '.join(repr(error).split()):.300}"
        raise UsageError(f"{where}: expected what the jobs write, {found}; remove it, or run its job again") from error
