"""What `run` and `plan` are told in the same words."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from launcher.core.model import ClusterSpec, Resume
    from launcher.run.bringup import Transports
    from launcher.run.planning import Wish
    from launcher.store.runs import KnownRun

DEFAULT_MANIFEST = "cluster.yaml"

cluster_option = click.option(
    "-c",
    "--cluster",
    metavar="FILE",
    help="The manifest (./cluster.yaml; without one, this machine alone).",
)
nodes_option = click.option(
    "--nodes", metavar="SET", help="Only these nodes: 'gpu[01-04]', '@group', 'a,b'."
)
runs_dir_option = click.option(
    "--runs-dir", metavar="DIR", help="Where runs are kept ($FLOWLAUNCH_RUNS, or ./runs)."
)

grace_option = click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=5.0,
    metavar="S",
    help="From TERM to KILL, seconds (5).",
)
lease_option = click.option(
    "--lease",
    type=click.FloatRange(min=15),
    default=60.0,
    metavar="S",
    help="How long workers live on without this launcher, seconds (60).",
)


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Returns what a shell may complete RUN to."""
    from launcher.store.run_record import runs_directory
    from launcher.store.runs import LAST, list_runs

    known = list_runs(runs_directory(ctx.params.get("runs_dir")))
    words = [LAST, *(word for run in known for word in (run.run_id, run.name) if word)]
    return [word for word in dict.fromkeys(words) if word.startswith(incomplete)]


run_argument = click.argument("run", shell_complete=complete_run)

_JOB_OPTIONS = (
    click.argument("job", required=False),
    click.argument("job_args", nargs=-1, type=click.UNPROCESSED),
    click.option("-m", "--module", metavar="MODULE", help="Run a module, as `python -m` does."),
    cluster_option,
    nodes_option,
    click.option(
        "--nproc-per-node",
        type=click.IntRange(min=1),
        metavar="N",
        help="Workers on each node (the node's slots).",
    ),
    click.option(
        "--env",
        multiple=True,
        metavar="K=V",
        help="Set K for the workers (repeatable); its value is never shown or logged.",
    ),
    click.option("--legacy-api", is_flag=True, help="JOB is written for OneFlow's old API."),
    click.option(
        "--placement",
        type=click.Choice(["script", "all"]),
        default="script",
        help="With --legacy-api: 'all' spreads what JOB pins to one device.",
    ),
    click.option(
        "--collect",
        multiple=True,
        metavar="PATTERN",
        help="Also bring these paths of the worker's working directory here (repeatable).",
    ),
    click.option(
        "--resume",
        metavar="RUN[@STEP]",
        help="Start from that run's newest (or that) checkpoint.",
    ),
    click.option("--dry-run", is_flag=True, help="A few steps on this machine alone, one worker."),
)


@dataclass(frozen=True)
class JobWords:
    """What the command line says of a job, as it was typed."""

    job: str | None
    job_args: tuple[str, ...]
    module: str | None
    cluster: str | None
    nodes: str | None
    nproc_per_node: int | None
    env: tuple[str, ...]
    legacy_api: bool
    placement: str
    collect: tuple[str, ...]
    resume: str | None
    dry_run: bool

    def wish(self, runs_dir: str | None) -> Wish:
        """Returns what the command line asks for; `runs_dir` is where --resume finds its run.

        Raises:
            click.UsageError: there is no job, or there are two.
            UsageError: an --env is malformed, or there is no checkpoint to start from.
            StoreError: the checkpoint to start from cannot be read.
        """
        from launcher.run.planning import Wish, parse_collect, parse_env

        job_args = self.job_args
        if self.module is not None:
            # With -m there is no JOB: what click took for it is the first of the job's arguments.
            job_args = (self.job, *job_args) if self.job is not None else job_args
        elif self.job is None:
            raise click.UsageError("name the JOB to run: a .py file, or -m MODULE")
        if self.placement != "script" and not self.legacy_api:
            raise click.UsageError("--placement is for --legacy-api only")
        return Wish(
            target=self.module or self.job or "",
            is_module=self.module is not None,
            args=job_args,
            nproc_per_node=self.nproc_per_node,
            env=parse_env(self.env),
            dry_run=self.dry_run,
            legacy_placement=self.placement if self.legacy_api else "",
            resume=self._resume(runs_dir),
            collect=parse_collect(self.collect),
        )

    def _resume(self, runs_dir: str | None) -> Resume | None:
        if self.resume is None:
            return None
        from launcher.store.checkpoints import resume_from
        from launcher.store.run_record import runs_directory

        return resume_from(runs_directory(runs_dir), self.resume)


def job_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of a command that takes a job; it is given them as one `JobWords`."""
    names = [field.name for field in fields(JobWords)]

    @functools.wraps(function)
    def command(**values: Any) -> None:
        words = JobWords(**{name: values.pop(name) for name in names})
        function(words, **values)

    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


def known_run(run: str, runs_dir: str | None) -> KnownRun:
    """Returns the run that RUN and --runs-dir name.

    Raises:
        UsageError: there is no such run, or several are meant.
        StoreError: its run.json cannot be read.
    """
    from launcher.store.run_record import runs_directory
    from launcher.store.runs import find_run

    return find_run(runs_directory(runs_dir), run)


def manifest_file(cluster: str | None) -> Path | None:
    """Returns the manifest that `read_cluster` reads, None where it is this machine alone."""
    path = Path(cluster or DEFAULT_MANIFEST)
    return path if cluster is not None or path.exists() else None


def read_cluster(cluster: str | None, nodes: str | None) -> ClusterSpec:
    """Returns the cluster of the manifest, or this machine where there is no manifest.

    Raises:
        ManifestError: the manifest is wrong, or the one that was named is missing.
        UsageError: --nodes names what the manifest does not.
    """
    import dataclasses

    from launcher.run.planning import this_machine

    if cluster is None and not Path(DEFAULT_MANIFEST).exists():
        if nodes is not None:
            raise click.UsageError("--nodes needs a manifest; there is no cluster.yaml here")
        return this_machine()
    from launcher.core.manifest import select_nodes
    from launcher.store.manifest_file import read_manifest

    spec = read_manifest(Path(cluster or DEFAULT_MANIFEST))
    if nodes is None:
        return spec
    return dataclasses.replace(spec, nodes=select_nodes(spec, nodes))


def allow_many_files() -> None:
    """Lets this process open as many files as its user may: a node takes one, a worker four."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class TransportPool:
    """The ways to nodes, made when they are first asked for; closed at the end."""

    def __init__(self) -> None:
        self._made: Transports | None = None

    def __enter__(self) -> TransportPool:
        return self

    def __call__(self) -> Transports:
        """Returns them."""
        if self._made is None:
            allow_many_files()
            from launcher.cli.prompt import ask_secret
            from launcher.core.model import TransportKind
            from launcher.transport.local import LocalTransport
            from launcher.transport.ssh import SshTransport

            self._made = {
                TransportKind.LOCAL: LocalTransport(),
                TransportKind.SSH: SshTransport(prompt=ask_secret),
            }
        return self._made

    def __exit__(self, *problem: object) -> None:
        for transport in (self._made or {}).values():
            transport.close()
