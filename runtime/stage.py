"""A stage of a job: a progress bar, and a watchdog that knows of each unit that is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from runtime.log_lines import progress_bar
from runtime.watchdog import Watchdog


@contextlib.contextmanager
def stage(
    watchdog: Watchdog, name: str, total: int | None, unit: str, initial: int = 0
) -> Iterator[Callable[..., None]]:
    """Begins a stage; yields what is to be called as `done(number, last, postfix)` when units are done.

    Args:
        watchdog: Is told.
        name: Of the stage.
        total: How many units there are; None if that is not known.
        unit: Their name.
        initial: How many were done before.
    """
    watchdog.progress(name)
    with progress_bar(name, total, unit, initial) as bar:

        def done(number: int = 1, last: str = "", postfix: str = "") -> None:
            if postfix:
                bar.set_postfix_str(postfix, refresh=False)
            bar.update(number)
            left = "" if total is None else f"{total - bar.n} of {total}"
            watchdog.progress(name, last or f"{unit} {bar.n}", left)

        yield done
