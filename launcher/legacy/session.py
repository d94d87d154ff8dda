"""What a script shares between its job functions, and the moment when they are built.

The old API built all job functions together, at the first thing that needed one of them: a
checkpoint's init or load, or a call. So it is here.
"""

from __future__ import annotations

import collections
import typing

from launcher.legacy.config import Config
from launcher.legacy.launch import read_launch
from launcher.legacy.mesh import Mesh
from launcher.legacy.placement import choose_mesh, read_layout
from launcher.legacy.unsupported import LegacyError
from launcher.legacy.variables import Variables

if typing.TYPE_CHECKING:
    from launcher.legacy.job_function import JobFunction


class Session:
    """The one session of a process."""

    def __init__(self) -> None:
        self.config = Config()
        self.variables = Variables()
        self.jobs: typing.List[JobFunction] = []
        self.launch = read_launch()
        self._mesh: typing.Optional[Mesh] = None

    def add(self, job: JobFunction) -> None:
        """Notes a job function; its body runs when the session starts."""
        self.jobs.append(job)

    def start(self) -> Mesh:
        """Builds the job functions that are not built yet; returns where they are computed.

        Raises:
            LegacyError: the script contradicts the launch, or uses what is not covered.
        """
        for job in self.jobs:
            job.trace()
        if self._mesh is None:
            self._check_config()
            self._mesh = choose_mesh([job.trace().scopes for job in self.jobs], self.launch)
        return self._mesh

    def _check_config(self) -> None:
        layout = read_layout(self.launch)
        workers = collections.Counter(machine for machine, _ in layout)
        problems = self.config.problems(self.launch, workers)
        if problems:
            raise LegacyError("\n".join(problems))


session = Session()
