"""What one node may lack: a rule for each, from its facts alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from launcher.core.facts import NodeFacts, NodeSurvey
from launcher.core.findings import Finding, Severity
from launcher.core.model import TransportKind

# An agent refuses a run below the first; logs and checkpoints soon need the second.
MIN_FREE_BYTES = 64 * 1024 * 1024
LITTLE_FREE_BYTES = 2 * 10**9
# What building the runtime takes at its height.
RUNTIME_BYTES = 5 * 10**9
# What one worker takes with a small model, and the least that data loaders and NCCL share.
WORKER_BYTES = 400 * 10**6
SHM_BYTES = 64 * 10**6
# Sockets to the other workers, files of data and logs; the threads of one worker.
SPARE_FILES, FILES_PER_PEER = 256, 4
SPARE_PROCESSES, PROCESSES_PER_WORKER = 64, 64
CLOCK_S = 2.0

Rule = Callable[[NodeSurvey, NodeFacts, int], Iterator[Finding]]


def find_of_node(node: NodeSurvey, world: int) -> Iterator[Finding]:
    """Yields what is wrong with one node by itself.

    Args:
        node: the node.
        world: how many workers there are in all.
    """
    if node.trouble is not None:
        topic = "login" if node.facts is None else "agent"
        fix = node.trouble.hint or "try `ssh` to it by hand, then check again"
        yield _error(node, topic, node.trouble.message, fix)
    if node.facts is None:
        return
    for rule in _RULES:
        yield from rule(node, node.facts, world)


def _error(node: NodeSurvey, topic: str, message: str, fix: str, cause: str = "") -> Finding:
    return Finding(Severity.ERROR, topic, (node.name,), message, fix, cause)


def _warning(node: NodeSurvey, topic: str, message: str, fix: str, cause: str = "") -> Finding:
    return Finding(Severity.WARNING, topic, (node.name,), message, fix, cause)


def find_taken_ports(node: NodeSurvey) -> Iterator[Finding]:
    """Yields a finding for each port that a run needs on a node and another program has."""
    for port, who in node.taken.items():
        yield _error(
            node,
            "ports",
            f"port {port}, which a run needs there, is taken",
            "end that program, or choose another ctrl_port or data_port in the manifest",
            f"it is held by {who}" if who else "who holds it is hidden from this user",
        )


def _ports(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    yield from find_taken_ports(node)


def _runtime(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    oneflow = facts.oneflow
    if oneflow is None:
        return
    if oneflow.missing and node.node.transport is TransportKind.LOCAL:
        fix = "nothing: the next run builds it first; `flowlaunch provision` does it now"
        yield _warning(node, "runtime", oneflow.error, fix)
    elif oneflow.missing:
        fix = "`flowlaunch provision` builds it; or give the node a python that has OneFlow 0.9"
        yield _error(node, "runtime", oneflow.error, fix)
    elif oneflow.error:
        where = oneflow.path or node.node.python
        fix = 'mend that python, or write "python: auto" for flowlaunch\'s own runtime'
        yield _error(node, "runtime", f"{where} is of no use to workers", fix, oneflow.error)
    elif not oneflow.oneflow.startswith("0.9."):
        fix = 'name a python that has OneFlow 0.9, or write "python: auto"'
        yield _warning(node, "runtime", f"it has OneFlow {oneflow.oneflow}, not 0.9", fix)


def _gpus(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    count = len(facts.gpus)
    if facts.gpu_problem:
        tell = _error if node.node.slots is None else _warning
        fix = "add this user to the device's group (ls -l /dev/nvidia0), or load the driver anew"
        yield tell(node, "gpus", "a GPU there cannot be used", fix, facts.gpu_problem)
    if node.node.slots is None and count == 0:
        fix = "give the node a number of slots, or look at its driver: /dev/nvidia0 is missing"
        yield _error(node, "gpus", 'it has no NVIDIA GPU, and its slots are "gpus"', fix)
    elif node.slots is not None and 0 < count < node.slots:
        fix = 'write "slots: gpus", unless the job keeps to the CPU'
        yield _warning(node, "gpus", f"its {node.slots} workers share {_count(count, 'GPU')}", fix)


def _cores(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    if node.slots is not None and not facts.gpus and 0 < facts.cores < node.slots:
        message = f"its {node.slots} workers share {_count(facts.cores, 'core')}"
        fix = f'write "slots: {facts.cores}": more than one worker a core is slower, not faster'
        yield _warning(node, "cores", message, fix)


def _disk(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    place = node.node.workdir or "~/.flowlaunch"
    fix = "make room there, or set the node's workdir to a larger disk"
    free = facts.home_free_bytes
    if free is not None and free < LITTLE_FREE_BYTES:
        tell = _error if free < MIN_FREE_BYTES else _warning
        yield tell(node, "disk", f"{place} has {_size(free)} free", fix)
    lacks = facts.oneflow is not None and facts.oneflow.missing
    if lacks and facts.cache_free_bytes is not None and facts.cache_free_bytes < RUNTIME_BYTES:
        message = f"the OneFlow runtime needs 5 GB, its cache has {_size(facts.cache_free_bytes)}"
        fix = "make room there, or set FLOWLAUNCH_CACHE in that login to a larger disk"
        yield _error(node, "disk", message, fix)


def _memory(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    slots, free = node.slots or 1, facts.memory_free_bytes
    if free is not None and free < slots * WORKER_BYTES:
        message = f"{_size(free)} of memory are free for {_count(slots, 'worker')}"
        fix = "end what fills its memory, or give the node fewer slots"
        yield _warning(node, "memory", message, fix, "a small model takes 0.4 GB a worker")
    shared = facts.shm_free_bytes
    if shared is not None and shared < SHM_BYTES:
        fix = "free it, or enlarge it: mount -o remount,size=2G /dev/shm (docker: --shm-size)"
        message = f"its shared memory (/dev/shm) has {_size(shared)} free"
        yield _warning(node, "memory", message, fix)


def _limits(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    files = SPARE_FILES + FILES_PER_PEER * world
    if facts.open_files is not None and facts.open_files < files:
        message = f"a process may open {facts.open_files} files, a worker may need {files}"
        fix = "raise nofile in /etc/security/limits.conf there (ulimit -n shows it)"
        yield _warning(node, "limits", message, fix)
    processes = SPARE_PROCESSES + PROCESSES_PER_WORKER * (node.slots or 1)
    if facts.processes is not None and facts.processes < processes:
        message = f"the user may have {facts.processes} threads, the workers may need {processes}"
        fix = "raise nproc in /etc/security/limits.conf there (ulimit -u shows it)"
        yield _warning(node, "limits", message, fix)


def _clock(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    if node.ahead_s is not None and abs(node.ahead_s) > CLOCK_S:
        how = "ahead of" if node.ahead_s > 0 else "behind"
        message = f"its clock is {abs(node.ahead_s):.0f} s {how} this machine's"
        yield _warning(node, "clock", message, "run an NTP service there, e.g. chrony")


def _leftovers(node: NodeSurvey, facts: NodeFacts, world: int) -> Iterator[Finding]:
    for left in facts.leftovers:
        if left.pid:
            message = f"run {left.run} still goes on there (agent {left.pid})"
            fix = f"let it end, or end it: `flowlaunch stop {left.run}`"
        else:
            message = f"run {left.run} left its directory there; nothing of it lives"
            fix = "bring home what is missing with `flowlaunch attach`, then `flowlaunch reap`"
        yield _warning(node, "leftovers", message, fix)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _size(count: int) -> str:
    """Returns a number of bytes for people.

    >>> _size(1_500_000_000), _size(20_000_000)
    ('1.5 GB', '20 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"


_RULES: tuple[Rule, ...] = (
    _ports, _runtime, _gpus, _cores, _disk, _memory, _limits, _clock, _leftovers,
)  # fmt: skip
