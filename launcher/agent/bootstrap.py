"""The first code of a worker: makes OneFlow behave, then runs the job as python would.

Run by the runtime's interpreter as ``python bootstrap.py script PATH ARGS…`` or
``… module NAME ARGS…`` with the working directory at the job's place and FLOWLAUNCH_ROOT at the
top of the shipped folder.

What OneFlow 0.9.0 needs help with:

- ``import oneflow`` is the rendezvous. A rank that comes before rank 0 listens sleeps for 10 s,
  so ranks above 0 wait here, at the import, until the agent closes the gate's pipe.
- Nodes with different numbers of workers hang for ever unless node_size is set, which no
  environment variable does: the function that fills the settings in is wrapped.
- After an exception or sys.exit(n) on one rank, every rank hangs in the exit barrier: the
  traceback is printed and the process ends at once, without it.
"""

from __future__ import annotations

# Each import here is paid once a worker, on every node at once: what is needed only in case of
# need is imported there. importlib.abc alone would double the start.
import importlib.machinery
import os
import runpy
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType, TracebackType
    from typing import Any, Callable, List, Optional, Sequence

# The end of a traceback that goes with the report of it.
_TRACE_CHARS = 16000
# Asks for the stacks of all threads; of the real-time signals, one that nothing else uses.
STACKS_SIGNAL = 34 + 11
_ENV_MODULE = "oneflow.framework.env_util"


def report(kind: str, **fields: object) -> None:
    """Appends one line for the agent and the launcher; silent where nobody listens."""
    path = os.environ.get("FLOWLAUNCH_REPORT")
    if not path:
        return
    import json

    line = json.dumps(dict(fields, kind=kind, time=time.time())) + "\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode("utf-8", "replace"))
    finally:
        os.close(fd)


class OneFlowFinder:
    """Sees the import of oneflow begin and end, and mends its settings in between."""

    def __init__(self, rank: int, gate_fd: int) -> None:
        self._rank = rank
        self._gate_fd = gate_fd

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        """Wraps the loaders of two modules; leaves all others to the ordinary finders."""
        if name == "oneflow":
            return self._watched(name, path, self._before_import, self._after_import)
        if name == _ENV_MODULE:
            return self._watched(name, path, None, _mend_settings)
        return None

    def _watched(
        self,
        name: str,
        path: Optional[Sequence[str]],
        before: Optional[Callable[[], None]],
        after: Callable[[ModuleType], None],
    ) -> Optional[ModuleSpec]:
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if before is not None:
                before()
            execute(module)
            after(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _before_import(self) -> None:
        report("importing")
        if self._rank > 0:
            # Ends when the agent closes the other end: opened for all, or the agent gone.
            os.read(self._gate_fd, 1)

    def _after_import(self, module: ModuleType) -> None:
        report("joined")


def _answer_for_stacks() -> None:
    """Has Python's faulthandler write where the program is, upon a signal."""
    path = os.environ.pop("FLOWLAUNCH_STACKS", "")
    if path:
        import faulthandler

        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True)


def _mend_settings(module: Any) -> None:
    fill_in = module._UpdateDefaultEnvProtoByMultiClientEnvVars

    def filled_in(proto: Any) -> None:
        fill_in(proto)
        bootstrap = proto.ctrl_bootstrap_conf
        number = {key: int(os.environ.get(key) or 0) for key in _NUMBERS}
        if number["FLOWLAUNCH_NODE_SIZE"]:
            bootstrap.node_size = number["FLOWLAUNCH_NODE_SIZE"]
        if number["FLOWLAUNCH_DATA_PORT"]:
            proto.data_port = number["FLOWLAUNCH_DATA_PORT"]
        if number["FLOWLAUNCH_CONTROL_PORT"]:
            bootstrap.ctrl_port = number["FLOWLAUNCH_CONTROL_PORT"]
        if os.environ.get("FLOWLAUNCH_ADDR"):
            bootstrap.host = os.environ["FLOWLAUNCH_ADDR"]

    module._UpdateDefaultEnvProtoByMultiClientEnvVars = filled_in


_NUMBERS = ("FLOWLAUNCH_NODE_SIZE", "FLOWLAUNCH_DATA_PORT", "FLOWLAUNCH_CONTROL_PORT")


def _run(kind: str, target: str, arguments: List[str]) -> None:
    root = os.environ["FLOWLAUNCH_ROOT"]
    shipped = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.argv = [target] + arguments
    if kind == "script":
        path = os.path.join(root, target)
        sys.argv[0] = path
        # As `python PATH` would, and the folder's top, so that its packages are found too. The
        # shipped `launcher` comes behind the job's own modules and before installed ones.
        sys.path[0:1] = [os.path.dirname(path), root, shipped]
        _take_on_legacy_api()
        runpy.run_path(path, run_name="__main__")
    else:
        sys.path[0:1] = [os.getcwd(), root, shipped]
        _take_on_legacy_api()
        runpy.run_module(target, run_name="__main__", alter_sys=True)


def _take_on_legacy_api() -> None:
    placement = os.environ.get("FLOWLAUNCH_LEGACY_PLACEMENT")
    if placement:
        from launcher import legacy

        legacy.install(placement)


def _own_frames(trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """Takes out the frames of this file, and of runpy before the job's first: they only hide it."""
    this_file = os.path.abspath(__file__)
    own: List[TracebackType] = []
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        runs_job = not own and (name == runpy.__file__ or name.startswith("<frozen runpy"))
        if not runs_job and os.path.abspath(name) != this_file:
            own.append(trace)
        trace = trace.tb_next
    for frame, following in zip(own, own[1:] + [None]):
        frame.tb_next = following
    return own[0] if own else None


def _leave(code: int) -> None:
    """Ends the process now where OneFlow's exit barrier would wait for ranks that never come."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    if code and "oneflow" in sys.modules:
        os._exit(code)
    sys.exit(code)


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    sys.stderr.write("%s\n" % (error.code,))
    return 1


def main() -> None:
    """Runs the job and ends with its exit code."""
    # A file would get the output in blocks, and whoever follows it would see it late.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _answer_for_stacks()
    gate = int(os.environ.pop("FLOWLAUNCH_GATE", "-1"))
    sys.meta_path.insert(0, OneFlowFinder(int(os.environ.get("RANK", "0")), gate))
    kind, target, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    try:
        _run(kind, target, arguments)
    except SystemExit as error:
        _leave(_exit_code(error))
    except BaseException as error:
        import traceback

        error.__traceback__ = _own_frames(error.__traceback__)
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        sys.stderr.write("".join(lines))
        trace = "".join(lines)[-_TRACE_CHARS:].splitlines()
        report("exception", type=type(error).__name__, message=str(error)[:2000], trace=trace)
        _leave(130 if isinstance(error, KeyboardInterrupt) else 1)


if __name__ == "__main__":
    main()
