"""What 3,000 hours of Ego4D and Open-X cost on 10, 100 and 1,000 nodes: prints the tables of docs/scaling.md.

    python benchmarks/scaling_table.py [--svg docs/scaling.svg]

Arithmetic on `Measured`, whose figures come from the commands beside them, and on `Assumed`, which nothing measured.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

NODES = (10, 100, 1000)
_ROWS_AT_ONCE = 10_000  # of pipelines/preprocess.py: the next rows wait for the last of these
_TEXT_BYTES = 128 + 20 * 512 * 2
_METADATA_BYTES = 750
_TAR_BLOCK = 512
_UPLOAD_PART = 50 << 20  # of s3fs


@dataclass(frozen=True)
class Measured:
    """Figures of this project's benchmarks that do not depend on the windows, of one core, in seconds and bytes."""

    clip_bytes: float = 60_400  # benchmarks/unit_costs.py --samples: mean of three sources
    row_s: float = 0.0111  # benchmarks/scale.py: dispatch_driver_ms_a_row
    count_part_s: float = 0.0016  # count_rows_cpu_s at 100 M
    manifest_clip_bytes: float = 125  # count_rows_got_bytes
    query_part_s: float = 0.0012  # query_first_cpu_s at 100 M
    query_part_gets: float = 2  # query_first_get
    query_part_bytes: float = 71e3  # query_first_mb at 10 M clips less that at 1 M
    query_most_bytes: float = 4.3e9  # query_first_mb at 100 M: DuckDB's limit, 4 GB by default
    index_clip_bytes: float = 80  # vpp/data/clip_index.py; while it is read 281: index_mb at 10 M


@dataclass(frozen=True)
class Assumed:
    """What was not measured."""

    cores_per_node: int = 8  # as benchmarks/preprocess.py's core; a hyperthread is less
    request_s: float = 0.05  # from a request to its answer
    requests_at_once: int = 16  # pipelines/ledger.py, pipelines/query.py
    source_bytes: float = 2e12 + 1e12  # 3,000 hours at 1.5 Mbit/s; Open-X at 640x480 or less
    block_bytes: int = 4 << 20  # schemas/storage.py
    stretch_gets: float = 4  # of a shard for its video beyond blocks: size, header, index, the keyframe before
    puts_per_s: float = 3500  # a prefix of S3: its user guide, "Optimizing Amazon S3 performance"
    gets_per_s: float = 5500


@dataclass(frozen=True)
class Windows:
    """A kind of windows, with what was measured of it.

    Attributes:
        name: Of the kind.
        clips: How many.
        clip_s: Seconds of a core for a clip.
        plan_clip_s: Seconds of the driver for a clip's plan.
        plan_clip_bytes: Bytes of it.
        shard_gets: GET, HEAD and LIST requests of a shard for all but video, by clips a shard.
    """

    name: str
    clips: float
    clip_s: float
    plan_clip_s: float
    plan_clip_bytes: float
    shard_gets: dict[int, float]


# Ego4D: 3.85 M narrations in 3,670 hours (arXiv 2110.07058), taken for 3,000. Open-X: 1 M trajectories
# (arXiv 2310.08864), one camera each, 2,000 hours at 10 frames a second. Dense windows begin at every 4th frame.
# Seconds of a clip: benchmarks/preprocess.py, and its ratio to narrations by benchmarks/unit_costs.py. The rest:
# benchmarks/scale.py, <name>_plan_cpu_s, <name>_plan_put_bytes, and <name>_load_* with <name>_text_get: of narrations
# at 4.15 M clips, of dense windows at 100 M; in large shards of these the bound, one for each caption.
WINDOWS = (
    Windows("narrations", 3.85e6 * 3000 / 3670 + 1e6, 3.88 / 66.9, 32e-6, 100, {512: 222, 4096: 1244}),
    Windows("dense", (3000 * 30 + 2000 * 10) * 3600 / 4, 1 / 66.9, 17e-6, 45, {512: 19, 4096: 168}),
)


@dataclass(frozen=True)
class Work:
    """Windows in shards of `shard_clips` clips (`--shard.clips`)."""

    windows: Windows
    shard_clips: int

    @property
    def shards(self) -> int:
        """How many shards, hence tasks, tars and manifest parts."""
        return math.ceil(self.windows.clips / self.shard_clips)


WORKS = tuple(Work(windows, shard_clips) for windows in WINDOWS for shard_clips in (512, 4096))


@dataclass(frozen=True)
class Cost:
    """What a work costs on some nodes; hours and rates are of the phase that makes shards, except `driver_h`."""

    shards_h: float
    driver_h: float
    node_hours: float
    limit: str
    puts_per_s: float
    gets_per_s: float


def tar_bytes(measured: Measured) -> float:
    """Bytes of a clip in its tar."""
    members = (measured.clip_bytes, _TEXT_BYTES, _METADATA_BYTES, 50.0)
    return sum(_TAR_BLOCK + math.ceil(size / _TAR_BLOCK) * _TAR_BLOCK for size in members)


def puts_of_shard(work: Work, measured: Measured) -> int:
    """PUT and POST requests for a tar and its manifest part."""
    tar = work.shard_clips * tar_bytes(measured)
    return 2 if tar < 2 * _UPLOAD_PART else 3 + math.ceil(tar / _UPLOAD_PART)  # large ones go up in parts


def requests(work: Work, measured: Measured, assumed: Assumed) -> tuple[float, float]:
    """PUT and GET requests (with HEAD and LIST) of making all shards."""
    blocks = assumed.source_bytes / assumed.block_bytes
    gets = work.windows.shard_gets[work.shard_clips] + assumed.stretch_gets
    return work.shards * puts_of_shard(work, measured), work.shards * gets + blocks


def cost(work: Work, nodes: int, measured: Measured, assumed: Assumed) -> Cost:
    """Time and rates; what takes longest is the limit."""
    cores = nodes * assumed.cores_per_node
    shard_s = work.shard_clips * work.windows.clip_s
    groups = [min(_ROWS_AT_ONCE, work.shards - first) for first in range(0, work.shards, _ROWS_AT_ONCE)]
    puts, gets = requests(work, measured, assumed)
    times = {
        "cores": shard_s * sum(math.ceil(rows / cores) for rows in groups),
        "driver: tasks": work.shards * measured.row_s,
        "PUT rate": puts / assumed.puts_per_s,
        "GET rate": gets / assumed.gets_per_s,
    }
    limit = max(times, key=times.__getitem__)
    phase_s = times[limit]
    plan_s = work.windows.clips * work.windows.plan_clip_s
    answers_s = work.shards * assumed.request_s / assumed.requests_at_once
    driver_s = plan_s + max(work.shards * measured.count_part_s, answers_s)
    return Cost(phase_s / 3600, driver_s / 3600, nodes * phase_s / 3600, limit, puts / phase_s, gets / phase_s)


def stored_bytes(work: Work, measured: Measured) -> dict[str, float]:
    """Bytes in the bucket."""
    return {
        "shards": work.windows.clips * tar_bytes(measured),
        "manifest": work.windows.clips * measured.manifest_clip_bytes,
        "plan": work.windows.clips * work.windows.plan_clip_bytes,
    }


def table(measured: Measured, assumed: Assumed) -> str:
    """Both tables, as Markdown."""
    lines = [
        "| windows | clips a shard | nodes | shards, h | node hours | PUT/s | GET/s | limit | driver alone, h |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for work in WORKS:
        for nodes in NODES:
            found = cost(work, nodes, measured, assumed)
            lines.append(
                f"| {work.windows.name} | {work.shard_clips:,} | {nodes:,} | {found.shards_h:.2f} | "
                f"{found.node_hours:,.0f} | {found.puts_per_s:,.0f} | {found.gets_per_s:,.0f} | {found.limit} | "
                f"{found.driver_h:.2f} |"
            )
    lines += [
        "",
        "| windows | clips, M | clips a shard | shards | PUT | GET, HEAD, LIST, M | tars, TB | manifest, GB | plan, GB "
        "| first SQL answer, min | its memory, GB | index of a trainer, GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for work in WORKS:
        windows = work.windows
        puts, gets = requests(work, measured, assumed)
        stored = stored_bytes(work, measured)
        answers_s = work.shards * measured.query_part_gets * assumed.request_s / assumed.requests_at_once
        first_s = max(answers_s, work.shards * measured.query_part_s)
        query_bytes = min(work.shards * measured.query_part_bytes, measured.query_most_bytes)
        index_bytes = windows.clips * measured.index_clip_bytes
        lines.append(
            f"| {windows.name} | {windows.clips / 1e6:.1f} | {work.shard_clips:,} | {work.shards:,} | {puts:,.0f} | "
            f"{gets / 1e6:.1f} | {stored['shards'] / 1e12:.2f} | {stored['manifest'] / 1e9:.1f} | "
            f"{stored['plan'] / 1e9:.1f} | {first_s / 60:.1f} | "
            f"{query_bytes / 1e9:.1f} | {index_bytes / 1e9:.1f} |"
        )
    return "\n".join(lines)


_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 470, 40, 270
_LINE_PX = 14
_SHORTEST_H, _LONGEST_H = 0.01, 100.0


def picture(measured: Measured, assumed: Assumed) -> str:
    """The dense work's hours against the number of nodes, as SVG."""
    small, large = (work for work in WORKS if work.windows.name == "dense")
    curves = {
        "cores": ("#1a6", lambda nodes: small.windows.clips * small.windows.clip_s / (nodes * assumed.cores_per_node)),
        "plan": ("#c33", lambda nodes: small.windows.clips * small.windows.plan_clip_s),
        f"tasks, {small.shard_clips} clips a shard": ("#36c", lambda nodes: small.shards * measured.row_s),
        f"tasks, {large.shard_clips} clips a shard": ("#69c", lambda nodes: large.shards * measured.row_s),
        f"PUT rate, {small.shard_clips} clips a shard": (
            "#888",
            lambda nodes: requests(small, measured, assumed)[0] / assumed.puts_per_s,
        ),
    }
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 320" font-family="sans-serif" font-size="12">',
        '<rect width="720" height="320" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22">Hours that each needs alone: {small.windows.clips / 1e6:.0f} M dense clips</text>',
    ]
    for hours in (0.01, 0.1, 1, 10, 100):
        y = _y(hours)
        parts.append(f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{hours:g}</text>')
    for nodes in (1, 10, 100, 1000):
        parts.append(f'<text x="{_x(nodes):.0f}" y="{_BOTTOM + 18}" text-anchor="middle">{nodes:,}</text>')
    parts.append(f'<text x="{(_LEFT + _RIGHT) // 2}" y="{_BOTTOM + 38}" text-anchor="middle">nodes of 8 cores</text>')
    label_y = 0.0
    for name, (colour, seconds) in sorted(curves.items(), key=lambda curve: -curve[1][1](NODES[-1])):
        (x1, y1), (x2, y2) = ((_x(nodes), _y(seconds(nodes) / 3600)) for nodes in (1, 1000))
        line = f'x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"'
        parts.append(f'<line {line} stroke="{colour}" stroke-width="2"/>')
        label_y = max(y2 + 4, label_y + _LINE_PX)  # names of near lines stand below each other
        parts.append(f'<text x="{_RIGHT + 8}" y="{label_y:.0f}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(nodes: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * math.log10(nodes) / 3


def _y(hours: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * math.log10(hours / _SHORTEST_H) / math.log10(_LONGEST_H / _SHORTEST_H)


def main() -> None:
    """Parses, prints the tables, draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, help="where to draw the picture")
    arguments = parser.parse_args()
    print(table(Measured(), Assumed()))
    if arguments.svg:
        arguments.svg.write_text(picture(Measured(), Assumed()))


if __name__ == "__main__":
    main()
