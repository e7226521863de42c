"""What is done to the jobs and when: drawn from a seed, so that a run of chaos can be repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from chaos.store_proxy import Answer

PHASES = ("preprocess", "stage1", "stage2", "evaluate")

Kind = Literal["worker", "raylet", "driver", "server", "full_disk"] | Answer
KINDS: tuple[str, ...] = ("worker", "raylet", "driver", "server", "full_disk", *get_args(Answer))
"""What a fault is: SIGKILL of a Ray worker, of the node's raylet, of the driver, of the S3 server for a while; no space
left for what jobs and Ray stage and spill; an ailing store."""

TOLD = {
    "worker": "SIGKILL of a Ray worker",
    "raylet": "SIGKILL of the node's raylet",
    "driver": "SIGKILL of the driver",
    "server": "SIGKILL of the S3 server, back after 10 to 30 s",
    "full_disk": "full disk for spilled and staged files",
    "error_500": "S3 answers 500 InternalError",
    "error_503": "S3 answers 503 ServiceUnavailable",
    "slow_down": "S3 answers 503 SlowDown",
    "half_read": "S3 sends half of what was read",
    "lost_answer": "S3 does it and gives no answer",
}

_SHARES = (0.3, 0.6, 0.9)
_DURATIONS_S = {"server": (10.0, 30.0), "full_disk": (5.0, 15.0)}
_AILING_S = (5.0, 15.0)


@dataclass(frozen=True)
class Fault:
    """One thing that is done to a job.

    Attributes:
        number: Place in the phase.
        kind: One of `KINDS`.
        progress: Files that the job has to finish after the fault before, or after its start, before this one begins;
            0 does not wait for any, so that starting up is hit too.
        delay_s: Waited after that.
        duration_s: How long it lasts; 0 for a kill.
        share: Of the requests that are answered wrongly; 0 where none is.
        seed: Decides what else there is to choose: the worker, the requests.
    """

    number: int
    kind: str
    progress: int
    delay_s: float
    duration_s: float
    share: float
    seed: int


def draw_faults(seed: int, phase: str, count: int) -> list[Fault]:
    """The faults of a phase: every kind equally often, the rest at random, in random order.

    >>> faults = draw_faults(0, "stage1", 12)
    >>> faults == draw_faults(0, "stage1", 12), {fault.kind for fault in faults} == set(KINDS)
    (True, True)
    """
    rng = random.Random(f"{seed} {phase}")
    rounds, left = divmod(count, len(KINDS))
    kinds = [*KINDS * rounds, *rng.sample(KINDS, left)]
    rng.shuffle(kinds)
    return [_draw(rng, number, kind) for number, kind in enumerate(kinds)]


def _draw(rng: random.Random, number: int, kind: str) -> Fault:
    progress = rng.choice((0, 1, 1, 2))
    delay_s = rng.uniform(0.0, 1.5) if progress else rng.uniform(0.0, 12.0)
    ails = kind in get_args(Answer)
    shortest, longest = _AILING_S if ails else _DURATIONS_S.get(kind, (0.0, 0.0))
    return Fault(
        number=number,
        kind=kind,
        progress=progress,
        delay_s=round(delay_s, 2),
        duration_s=round(rng.uniform(shortest, longest), 1),
        share=rng.choice(_SHARES) if ails else 0.0,
        seed=rng.randrange(2**31),
    )


def by_kind(faults: Sequence[Fault]) -> dict[str, int]:
    """How many there are of each kind, in the order of `KINDS`."""
    return {kind: sum(fault.kind == kind for fault in faults) for kind in KINDS}
