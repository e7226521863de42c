"""What a disturbed run is compared with, and what counts as lost, doubled, skipped, repeated, unreadable.

Outputs are read where the store keeps them, behind the proxy and the server.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pyarrow.parquet as pq
from running import product_files

from vpp.sim.evaluation_rows import finished_episodes, read_rows
from vpp.train.checkpoint import find_checkpoints
from vpp.train.run_log import read_steps


@dataclass
class Damage:
    """What a run has that it should not; all zero and no `notes` is as it must be.

    Attributes:
        lost: Clips, episodes or rows that are missing.
        doubled: Clips, episodes or rows that are there more than once.
        skipped: Training samples that a step should have taken and did not.
        repeated: Training samples that a step took and should not have.
        unreadable: Checkpoints that claim to be complete and are not as they were written.
        differing: Files or rows whose content is not that of the undisturbed run.
        hangs: Times that a job made no progress for long.
        notes: What else went wrong, and examples of the above.
    """

    lost: int = 0
    doubled: int = 0
    skipped: int = 0
    repeated: int = 0
    unreadable: int = 0
    differing: int = 0
    hangs: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, other: Damage) -> None:
        """Adds up."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    @property
    def is_none(self) -> bool:
        """Whether all is well."""
        return self == Damage()


def check_preprocess(output: Path, truth: Path) -> Damage:
    """Clips by the manifest, and every file by its bytes."""
    damage = _compare(_sample_ids(output), _sample_ids(truth))
    found, expected = product_files(output), product_files(truth)
    different = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    damage.differing = len(different)
    damage.notes += [f"{name} is not as undisturbed" for name in different[:5]]
    return damage


def _sample_ids(output: Path) -> Counter[str]:
    ids: Counter[str] = Counter()
    for product, column in (("clips", "clip_id"), ("episodes", "episode_id")):
        for part in sorted((output / product / "manifest").glob("*/*.parquet")):
            table = pq.read_table(part, columns=[column, "status"], partitioning=None)
            ids.update(f"{row[column]} {row['status']}" for row in table.to_pylist())
    return ids


def _compare(found: Counter[str], expected: Counter[str]) -> Damage:
    lost, more = expected - found, found - expected
    doubled = sum(count for name, count in more.items() if expected[name])
    strange = sorted(name for name in more if not expected[name])
    return Damage(
        lost=lost.total(), doubled=doubled, notes=[f"{name} is not in the undisturbed run" for name in strange[:5]]
    )


def check_training(output: Path, truth: Path) -> Damage:
    """Samples of every step, their noise and losses to the bit, the weights that come out, all checkpoints."""
    damage = check_checkpoints(output)
    steps, undisturbed = read_steps(str(output)), read_steps(str(truth))
    found, expected = _samples(steps), _samples(undisturbed)
    damage.skipped, damage.repeated = (expected - found).total(), (found - expected).total()
    for column in undisturbed.column_names:
        if steps[column].to_pylist() != undisturbed[column].to_pylist():
            damage.differing += 1
            damage.notes.append(f"column {column} of the steps is not as undisturbed")
    for path in sorted(truth.glob("*/**/*.safetensors")):
        name = path.relative_to(truth)
        if name.parts[0] in ("model", "policy") and _content(output / name) != path.read_bytes():
            damage.differing += 1
            damage.notes.append(f"{name} is not as undisturbed")
    return damage


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _samples(steps: object) -> Counter[tuple[int, str]]:
    rows = steps.select(["step", "sample_ids"]).to_pylist()  # type: ignore[attr-defined]
    return Counter((row["step"], sample) for row in rows for sample in row["sample_ids"])


def check_checkpoints(output: Path) -> Damage:
    """Every byte of every checkpoint that claims to be complete; what was cut short makes no such claim."""
    _, skipped = find_checkpoints(str(output), verify=True)
    broken = [one for one in skipped if (Path(one.url) / "complete.json").exists()]
    return Damage(unreadable=len(broken), notes=[f"{one.url}: {one.reason}" for one in broken])


def check_evaluation(output: Path, truth: Path) -> Damage:
    """Rows without what depends on the clock and on luck, and videos."""
    found, expected = _rows(output), _rows(truth)
    damage = _compare(Counter(name for name, _ in found), Counter(name for name, _ in expected))
    wanted = dict(expected)
    different = [f"episode {name}: {row}" for name, row in found if name in wanted and row != wanted[name]]
    for video in sorted((truth / "videos").iterdir()):
        if _content(output / "videos" / video.name) != video.read_bytes():
            different.append(f"video {video.name} is not as undisturbed")
    damage.differing = len(different)
    damage.notes += different[:5]
    return damage


def _rows(output: Path) -> list[tuple[str, str]]:
    rows = read_rows(str(output), sorted(finished_episodes(str(output))))
    return [(f"{row.number}.{row.position}", str(replace(row, seconds=0.0, attempts=0))) for row in rows]


CHECKS = {
    "preprocess": check_preprocess,
    "stage1": check_training,
    "stage2": check_training,
    "evaluate": check_evaluation,
}
