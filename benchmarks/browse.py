"""Times of pages on a manifest of a million clips, as a browser waits for them, against pandas over the same files.

    python benchmarks/browse.py [--clips 1000000] [--parts 100] [--rounds 5] [--keep FOLDER] [--json]

`jobs/browse.py` runs as a process of its own; a page's time is that of its whole request, with nothing answered from an
earlier answer: each question of a kind has other filters. `overview` is asked each time after "Read again", so it opens
the manifest anew; `first_clips` is the first list after that. `page_1001` begins where a thousand pages end.

pandas answers the same questions in a process of its own, in two ways: it reads the columns that a page shows for each
page (`pandas`, with filters pushed down to the files), or keeps all of them in memory (`kept`, without the time to read
them). All have to give the same ids.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import measure
import pandas
import psutil
from synthetic_manifest import DATASETS, write_manifest

from schemas.layout import manifest_folder
from vpp.browse.dataset import PAGE_ROWS

ROOT = Path(__file__).resolve().parents[1]
Query = dict[str, str]

_IDS = re.compile(r'id="c-([0-9a-f]{20})"')
_WORDS = ("green mug", "DRAWER on", "wipe", "sponge next", "basket 12", "lid under", "pour a bottle", "fold")
_EQUAL = {"dataset": "dataset", "status": "status", "episode": "source_episode"}
_SHOWN = ["clip_id", "dataset", "status", "reason", "detail", "caption", "camera", "source_episode", "start_frame",
          "end_frame"]  # fmt: skip
_COUNTED = ["dataset", "status", "reason"]


def questions(rounds: int, far: str) -> dict[str, list[Query]]:
    """What is asked of the list of clips, by kind.

    Args:
        rounds: Questions of a kind, at most 8.
        far: The id with which the thousandth page ends.
    """
    numbers = range(rounds)
    begins = [f"{number * 37 % 256:02x}" for number in numbers]
    return {
        "clips": [{"after": begin} for begin in begins],
        "page_1001": [{"after": far[: 20 - number]} for number in numbers],
        "status": [{"status": "rejected", "after": begin} for begin in begins],
        "caption": [{"caption": word} for word in _WORDS[:rounds]],
        "caption_of_dataset": [
            {"caption": word, "dataset": DATASETS[place % len(DATASETS)], "status": "written"}
            for place, word in enumerate(_WORDS[:rounds])
        ],
        "episode": [{"episode": f"train/{number * 1371}"} for number in numbers],
    }


@contextlib.contextmanager
def server(folder: str) -> Iterator[tuple[str, psutil.Process]]:
    """Runs the job; the address of its first page, and its process."""
    command = [sys.executable, str(ROOT / "jobs/browse.py"), folder, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "ready: " not in line:
            raise RuntimeError(f"expected the address of the job, found {line!r}")
        yield line.partition("ready: ")[2].strip(), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def ask(address: str, data: bytes | None = None) -> tuple[float, str]:
    """Seconds of a request, and its page."""
    began = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(address, data=data)) as answer:
        text = answer.read().decode()
    return time.perf_counter() - began, text


def ours(folder: str, asked: dict[str, list[Query]], expected: dict[str, list[list[str]]]) -> dict[str, float]:
    """Asks the job for pages, whose ids have to be the expected ones."""
    figures: dict[str, float] = {}
    with server(folder) as (site, process):
        times: dict[str, list[float]] = {"overview": [], "first_clips": [], "clip": []}
        for _ in range(3):
            times["overview"].append(ask(f"{site}again", b"")[0])  # leads to the overview
            times["first_clips"].append(ask(f"{site}clips")[0])
        for kind, queries in asked.items():
            times[kind] = []
            for query, ids in zip(queries, expected[kind], strict=True):
                seconds, page = ask(f"{site}clips?{urlencode(query)}")
                assert _IDS.findall(page) == ids, f"{kind} {query}: other clips than pandas"
                times[kind].append(seconds)
        for identity in expected["clips"][0][:5]:
            times["clip"].append(ask(f"{site}clip?id={identity}")[0])
        for kind, seconds_of_kind in times.items():
            figures[f"{kind}_s"] = statistics.median(seconds_of_kind)
            figures[f"{kind}_slowest_s"] = max(seconds_of_kind)
        figures["peak_rss_mb"] = _peak_mb(process.pid)
    return figures


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def with_pandas(folder: str, rounds: int, is_kept: bool) -> tuple[dict[str, float], dict[str, list[list[str]]], str]:
    """Answers with pandas, in this process; figures, ids by kind, and the id with which the thousandth page ends."""
    clips = manifest_folder(folder, "clips")
    began = time.perf_counter()
    kept = pandas.read_parquet(clips, columns=_SHOWN) if is_kept else None
    figures = {"read_s": time.perf_counter() - began} if is_kept else {}
    ids = kept["clip_id"] if kept is not None else pandas.read_parquet(clips, columns=["clip_id"])["clip_id"]
    ordered = ids.sort_values()
    far = str(ordered.iloc[min(1000 * PAGE_ROWS, len(ordered) - PAGE_ROWS) - 1])
    del ids, ordered
    began = time.perf_counter()
    counted = pandas.read_parquet(clips, columns=_COUNTED) if kept is None else kept
    counted.groupby(_COUNTED).size()
    figures["overview_s"] = time.perf_counter() - began
    found: dict[str, list[list[str]]] = {}
    for kind, queries in questions(rounds, far).items():
        times, found[kind] = [], []
        for query in queries:
            began = time.perf_counter()
            found[kind].append(_page(clips, kept, query))
            times.append(time.perf_counter() - began)
        figures[f"{kind}_s"] = statistics.median(times)
        figures[f"{kind}_slowest_s"] = max(times)
    figures["peak_rss_mb"] = measure.peak_rss_mb()
    return figures, found, far


def _page(clips: str, kept: pandas.DataFrame | None, query: Query) -> list[str]:
    equal = [(column, query[name]) for name, column in _EQUAL.items() if name in query]
    if kept is None:
        pushed = [(column, "==", value) for column, value in equal] or None
        shown = pandas.read_parquet(clips, columns=_SHOWN, filters=pushed)
    else:
        shown = kept
        for column, value in equal:
            shown = shown[shown[column] == value]
    shown = shown[shown["clip_id"] > query.get("after", "")]
    if "caption" in query:
        shown = shown[shown["caption"].str.contains(query["caption"], case=False, regex=False)]
    return [str(value) for value in shown.sort_values("clip_id").head(PAGE_ROWS)["clip_id"]]


def main() -> None:
    """Parses, writes the manifest, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 9))
    parser.add_argument("--keep", help="write the manifest to this folder and leave it there, or use the one there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"clips": arguments.clips, "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="vpp-browse-") as temporary:
        folder = arguments.keep or temporary
        if not Path(manifest_folder(folder, "clips")).exists():
            figures["manifest_mb"] = write_manifest(Path(folder), arguments.clips, arguments.parts) / 1e6
        answers: dict[str, tuple[dict[str, float], dict[str, list[list[str]]], str]] = {}
        for name, is_kept in (("pandas", False), ("kept", True)):
            spawn = multiprocessing.get_context("spawn")  # a new process, whose peak memory is its own
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                answers[name] = pool.submit(with_pandas, folder, arguments.rounds, is_kept).result()
        expected, far = answers["pandas"][1:]
        assert answers["kept"][1] == expected
        figures |= ours(folder, questions(arguments.rounds, far), expected)
        for name, (of_pandas, _, _) in answers.items():
            figures |= {f"{name}_{kind}": value for kind, value in of_pandas.items()}
    measure.finish(figures, arguments.json)


if __name__ == "__main__":
    main()
