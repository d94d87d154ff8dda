"""Every file name of a run, in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

RUN_ID = re.compile(r"^(?P<job>.+)-(?P<date>\d{8})-(?P<time>\d{6})-(?P<suffix>[0-9a-f]{4})$")


@dataclass(frozen=True)
class RunPaths:
    """The names inside of a run's directory on the launcher's machine.

    >>> paths = RunPaths(PurePath("runs/lenet-20260102-030405-a1b2"))
    >>> str(paths.log("gpu1", 3, "stdout").relative_to(paths.top))
    'logs/gpu1/rank-3.stdout.log'
    >>> paths.checkpoint(40).name
    'step-00000040'
    """

    top: PurePath

    @property
    def run_id(self) -> str:
        """The run's id, which is the directory's name."""
        return self.top.name

    @property
    def record(self) -> PurePath:
        """What the run is and how it stands."""
        return self.top / "run.json"

    @property
    def plan(self) -> PurePath:
        """The plan it was started from."""
        return self.top / "plan.json"

    @property
    def events(self) -> PurePath:
        """Everything that happened, in order."""
        return self.top / "events.jsonl"

    @property
    def metrics(self) -> PurePath:
        """What the workers reported."""
        return self.top / "metrics.jsonl"

    @property
    def lock(self) -> PurePath:
        """Locked by the launcher that follows the run, for as long as it does."""
        return self.top / ".lock"

    @property
    def system(self) -> PurePath:
        """How busy the nodes were."""
        return self.top / "system.jsonl"

    @property
    def manifest(self) -> PurePath:
        """The manifest as it was when the run began; missing where there was none."""
        return self.top / "cluster.yaml"

    @property
    def page(self) -> PurePath:
        """The run as one HTML page, where `report` was asked for one."""
        return self.top / "report.html"

    @property
    def checkpoints(self) -> PurePath:
        """The directory of the checkpoints that are here."""
        return self.top / "checkpoints"

    def checkpoint(self, step: int) -> PurePath:
        """A checkpoint that is here, whole."""
        return self.checkpoints / f"step-{step:08d}"

    def arriving(self, step: int) -> PurePath:
        """A checkpoint on its way, not to be read."""
        return self.checkpoints / f".arriving-step-{step:08d}"

    @property
    def logs(self) -> PurePath:
        """The directory of all workers' output."""
        return self.top / "logs"

    @property
    def arriving_files(self) -> PurePath:
        """Files on their way here, by their content."""
        return self.checkpoints / ".arriving"

    @property
    def collected(self) -> PurePath:
        """What `--collect` brought, below the names of nodes."""
        return self.top / "collected"

    @property
    def collected_manifest(self) -> PurePath:
        """What is in it, a line for each path that came; a later line replaces an earlier one."""
        return self.collected / "MANIFEST.jsonl"

    def log(self, node: str, rank: int, stream: str) -> PurePath:
        """The bytes that a worker wrote to one of its streams."""
        return self.logs / node / f"rank-{rank}.{stream}.log"

    def report(self, node: str, rank: int) -> PurePath:
        """What a worker reported, as it wrote it; metrics.jsonl is made from these."""
        return self.top / "reports" / node / f"rank-{rank}.jsonl"

    def log_times(self, node: str, rank: int, stream: str) -> PurePath:
        """The index of times to offsets of a log; made anew by nobody, missed by few."""
        return self.logs / node / f".rank-{rank}.{stream}.times"


def run_id(job: str, date: str, suffix: str) -> str:
    """Returns the id of a run.

    Args:
        job: the job's name; what has no place in a file name becomes a dash.
        date: local time as ``YYYYmmdd-HHMMSS``.
        suffix: four hex digits that keep two runs of one second apart.

    >>> run_id("my job", "20260102-030405", "a1b2")
    'my-job-20260102-030405-a1b2'
    """
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '-', job).strip('-.') or 'job'}-{date}-{suffix}"
