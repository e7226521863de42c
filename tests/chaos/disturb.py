"""Runs a job until all faults of its phase were injected and each output that it began is complete.

A command that died or ended with an error is run again, as a user would; while the store or the disk is away, when it
is back. A run that is complete before the last fault makes room for another one with an output of its own.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import psutil
from s3 import S3Server

from chaos.checks import CHECKS, Damage, check_checkpoints
from chaos.faults import TOLD, Fault
from chaos.full_disk import FullDisk, allow_writing, forbid_writing
from chaos.phases import BUCKET, Phase
from chaos.processes import Job
from chaos.store_proxy import Ailment, Answer, StoreProxy

_POLL_S = 0.1
_ORPHANS_S = 20.0  # Ray ends what a killed driver has started


@dataclass(frozen=True)
class Site:
    """What the jobs live on, and what faults are done to.

    Attributes:
        folder: Of everything that chaos writes.
        server: The store.
        proxy: What the jobs take for the store.
        disk: For temporary files.
        hang_s: A job that finishes nothing for so long hangs.
    """

    folder: Path
    server: S3Server
    proxy: StoreProxy
    disk: FullDisk
    hang_s: float

    @property
    def bucket(self) -> Path:
        """Where the store keeps what the jobs read and write."""
        return self.folder / "store" / BUCKET

    def environment(self, port: int) -> dict[str, str]:
        """Of a job that finds the store at a port."""
        temporary = str(self.disk.folder)
        store = self.server.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        return store | {"TMPDIR": temporary, "RAY_TMPDIR": temporary, "RAY_ADDRESS": "local"}


@dataclass
class Injection:
    """A fault that was injected.

    Attributes:
        fault: As drawn.
        run: Number of the output.
        at_s: After the phase began.
        finished: Files that the job had finished.
        target: What was hit.
        exit_code: How the command ended for which it was the last fault; 0 also if others came before its end.
    """

    fault: Fault
    run: int
    at_s: float
    finished: int
    target: str
    exit_code: int = 0


@dataclass
class PhaseResult:
    """What was done in a phase and what came out.

    Attributes:
        phase: Its name.
        injections: What was done.
        left_out: Kinds of fault that could not be injected, and why.
        damage: What differs from the undisturbed run.
        runs: Outputs made.
        commands: How often the command was run.
        failed_alone: How often it failed although nothing was done to it; Ray gives up on a node that does not start
            within 30 s, which a loaded machine can cause.
        seconds: All of it.
    """

    phase: str
    injections: list[Injection] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    damage: Damage = field(default_factory=Damage)
    runs: int = 0
    commands: int = 0
    failed_alone: int = 0
    seconds: float = 0.0


class _Lasting:
    """A fault that goes on for a while."""

    def __init__(self, injection: Injection, site: Site, job: Job) -> None:
        self.injection = injection
        self._limited: list[psutil.Process] = []
        self._fault, self._site = injection.fault, site
        self._answered_before = site.proxy.answered[self._fault.kind]
        self._began = time.monotonic()
        self._until = self._began + self._fault.duration_s
        if self._fault.kind == "server":
            site.server.stop(signal_number=9)
        elif self._fault.kind == "full_disk" and site.disk.why_not:
            self._limited = job.python_processes()
            injection.target = f"files of {forbid_writing(self._limited)} processes limited"
        elif self._fault.kind == "full_disk":
            injection.target = f"{site.disk.fill() >> 20} MB taken"
        else:
            site.proxy.fall_ill(Ailment(cast(Answer, self._fault.kind), self._fault.share, self._fault.seed))

    @property
    def num_answered(self) -> int:
        return self._site.proxy.answered[self._fault.kind] - self._answered_before

    def is_over(self, is_running: bool) -> bool:
        """An ailing store ails until a job that runs has asked it."""
        may_wait = is_running and self._fault.share and not self.num_answered
        return time.monotonic() >= self._until and not may_wait

    def end(self) -> bool:
        """Puts things right; returns whether the fault met anything."""
        if self._fault.kind == "server":
            self._site.server.start()
            self.injection.target = f"away for {time.monotonic() - self._began:.1f} s"
        elif self._fault.kind == "full_disk":
            self._site.disk.free()
            allow_writing(self._limited)
            self.injection.target += f" for {time.monotonic() - self._began:.1f} s"
        else:
            self._site.proxy.recover()
            self.injection.target = f"{self.num_answered} requests, {self._fault.share:.0%} of them all"
            return self.num_answered > 0
        return True


class Disturbance:
    """One phase.

    Args:
        phase: The job.
        faults: What is done to it, in this order.
        site: Where.
        truth: Output of an undisturbed run of the same command.
        say: Shows a line.
    """

    def __init__(
        self, phase: Phase, faults: Sequence[Fault], site: Site, truth: Path, say: Callable[[str], None]
    ) -> None:
        self._phase, self._site, self._truth, self._say = phase, site, truth, say
        self._result = PhaseResult(phase.name)
        no_disk = site.disk.why_not and not site.disk.can_limit
        self._left_out = [fault for fault in faults if fault.kind == "full_disk" and no_disk]
        self._pending = deque(fault for fault in faults if fault not in self._left_out)
        self._count = len(faults)
        self._began = time.monotonic()

    def run(self) -> PhaseResult:
        """Goes on until all faults were injected, or something is wrong."""
        result = self._result
        result.left_out = {fault.kind: self._site.disk.why_not for fault in self._left_out}
        while self._pending or not result.runs:
            output = self._site.bucket / f"{self._phase.name}-{result.runs}"
            result.runs += 1
            run = _Run(self, output)
            try:
                is_complete = run.go_on()
            finally:
                run.clean_up()
            if not is_complete:
                break
            result.damage.add(self._check(output))
            if not result.damage.is_none:
                break
        result.seconds = time.monotonic() - self._began
        return result

    def _check(self, output: Path) -> Damage:
        for left_over in output.rglob(".rclone_temp_put_*"):  # of a server that was killed; it lists none of them
            left_over.unlink()
        try:
            return CHECKS[self._phase.name](output, self._truth)
        except Exception as error:  # whatever cannot be read is damage
            return Damage(differing=1, notes=[f"{output.name} cannot be compared: {type(error).__name__}: {error}"])


class _Run:
    """One output, from the first command until it is complete."""

    def __init__(self, of: Disturbance, output: Path) -> None:
        self._of, self._output = of, output
        self._phase, self._site, self._result = of._phase, of._site, of._result
        self._jobs: list[Job] = []
        self._lasting: _Lasting | None = None
        self._is_disturbed = False  # whether anything was done to the command that runs
        self._num_alone = 0  # commands in a row that failed undisturbed
        self._finished = 0
        self._changed_at = self._mark_at = time.monotonic()
        self._mark = 0  # what was finished when the last fault ended
        self._due_at: float | None = None

    def go_on(self) -> bool:
        """Returns whether the output is complete; what is wrong else stands in the result."""
        self._start()
        while True:
            time.sleep(_POLL_S)
            self._look()
            code = self._jobs[-1].exit_code()
            if self._lasting and (code == 0 or self._lasting.is_over(is_running=code is None)):
                self._end_lasting()
            if code == 0:
                return True
            if code is not None and not self._lasting:
                if not self._may_start_again(code):
                    return False
                self._start()
            elif code is None and not self._lasting:
                self._inject_what_is_due()
            if time.monotonic() - self._changed_at > self._site.hang_s:
                self._result.damage.hangs += 1
                self._wrong(f"finished nothing for {self._site.hang_s:.0f} s")
                return False

    def clean_up(self) -> None:
        """Puts things right and ends what is left."""
        if self._lasting:
            self._end_lasting()
        for job in self._jobs:
            job.end(wait_s=_ORPHANS_S if job.exit_code() is not None else 0.0)
        self._site.disk.clear()

    def _start(self) -> None:
        self._site.disk.clear("vpp-*")  # what a killed command had staged, as a cleaner of temporary files would
        environment = self._site.environment(self._site.proxy.port)
        command = [*self._phase.command, "--output", f"s3://{BUCKET}/{self._output.name}"]
        log = self._site.folder / "logs" / f"{self._output.name}.log"
        self._jobs.append(Job(command, environment, log, self._site.folder))
        self._result.commands += 1
        self._is_disturbed = False
        self._set_mark()

    def _set_mark(self) -> None:
        self._mark, self._mark_at, self._due_at = self._finished, time.monotonic(), None
        self._changed_at = self._mark_at

    def _look(self) -> None:
        finished = self._phase.progress(self._output)
        if finished != self._finished:
            self._finished, self._changed_at = finished, time.monotonic()

    def _inject_what_is_due(self) -> None:
        if not self._of._pending:
            return
        fault = self._of._pending[0]
        now = time.monotonic()
        if self._due_at is None and self._finished - self._mark >= fault.progress:
            self._due_at = (now if fault.progress else self._mark_at) + fault.delay_s
        if self._due_at is None or now < self._due_at:
            return
        injection = Injection(fault, self._result.runs - 1, now - self._of._began, self._finished, "")
        job, rng = self._jobs[-1], random.Random(fault.seed)
        if fault.kind == "driver":
            injection.target = job.kill_driver()
        elif fault.kind == "worker":
            injection.target = job.kill_worker(rng)
        elif fault.kind == "raylet":
            injection.target = job.kill_raylet(rng)
        else:
            self._lasting = _Lasting(injection, self._site, job)
        if not injection.target and not self._lasting:
            return  # no such process yet
        self._of._pending.popleft()
        self._is_disturbed = True
        if not self._lasting:
            self._record(injection)

    def _end_lasting(self) -> None:
        lasting = cast(_Lasting, self._lasting)
        self._lasting = None
        if lasting.end():
            self._record(lasting.injection)
        else:
            self._of._pending.appendleft(lasting.injection.fault)

    def _record(self, injection: Injection) -> None:
        self._result.injections.append(injection)
        self._set_mark()
        done, fault = len(self._result.injections), injection.fault
        self._of._say(
            f"{self._phase.name:10} {done:>3}/{self._of._count}  {injection.at_s:6.1f} s  {TOLD[fault.kind]}: "
            f"{injection.target}; {injection.finished} files finished"
        )

    def _may_start_again(self, code: int) -> bool:
        """Notes how the command ended; False if nothing had been done to it nor to the one before."""
        self._of._say(f"{self._phase.name:10} the command ended with {code}: run again")
        if not self._is_disturbed:
            self._result.failed_alone += 1
            self._num_alone += 1
            if self._num_alone > 1:
                self._wrong(f"the command ended with {code} again though nothing was done to it")
            return self._num_alone == 1
        self._num_alone = 0
        if self._result.injections:
            self._result.injections[-1].exit_code = code
        if code > 0 and self._phase.name.startswith("stage"):
            self._jobs[-1].end(_ORPHANS_S)
            self._result.damage.add(check_checkpoints(self._output))
        return True

    def _wrong(self, note: str) -> None:
        self._result.damage.notes.append(f"{self._output.name}: {note}; see logs/{self._output.name}.log")
        self._of._say(self._result.damage.notes[-1])


def run_undisturbed(phase: Phase, site: Site, truth: Path) -> float:
    """Runs a phase's command once, without proxy and faults, into a folder; returns how long it took.

    Raises:
        RuntimeError: If it fails.
    """
    began = time.monotonic()
    environment: Mapping[str, str] = site.environment(site.server.port)
    log = site.folder / "logs" / f"{phase.name}-undisturbed.log"
    job = Job([*phase.command, "--output", str(truth)], environment, log, site.folder)
    try:
        while (code := job.exit_code()) is None:
            time.sleep(_POLL_S)
            if time.monotonic() - began > 4 * site.hang_s:
                raise RuntimeError(f"{phase.name} does not end even undisturbed; see {log}")
    finally:
        job.end()
        site.disk.clear()
    if code:
        raise RuntimeError(f"{phase.name} ended with {code} even undisturbed; see {log}")
    return time.monotonic() - began
