"""What a browser is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

TOKEN_VARIABLE = "VPP_BROWSE_TOKEN"


@dataclass(frozen=True)
class BrowseSettings:
    """Shows what lies in a folder as web pages, for example:

    python jobs/browse.py out/demo

    Datasets, trainings and evaluations are looked for up to two levels deep. Nothing is written. If VPP_BROWSE_TOKEN is
    set, it is the password that the pages ask for, with any user name. Also read from this job's section of vpp.yaml in
    the working directory, or of --config FILE.

    Raises:
        ValueError: If a value is outside its range.
    """

    folder: tyro.conf.Positional[str] = ""
    """Folder or URL of a run: what `make demo` writes, or the output of jobs/preprocess.py."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for every one of this machine."""
    port: int = 8080
    """0 for one that the system chooses."""
    memory: str = "2GB"
    """What DuckDB may use for each dataset before it spills to disk."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port: expected 0 to 65535, found {self.port}")
