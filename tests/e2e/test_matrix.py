"""The matrix: every fault, attached, detached and with a restart, on sshd in namespaces.

Each cell asserts the exit code, the cause that is named, that nothing survives on any node, and
that no byte is lost that was written before the fault. What it measures stands in
docs/reliability.md (`python benchmarks/reliability.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.deadline import wait_until
from tests.support.faults import Trial, after, early_lines, small_disk, workers_of
from tests.support.lab import Factory, Lab, lab_of_namespaces
from tests.support.netns import NetHost
from tests.support.processes import command_of, descendants
from tests.support.sshd import started_again

CTRL_PORT = 12138
MODES = ("attached", "detached", "restart")


class Fault(NamedTuple):
    """What a worker does, and what is to be said of it.

    Attributes:
        name: as the table calls it.
        how: the word for the job.
        code: the exit code.
        words: of the last line, and of the restart's cause.
        oneflow: whether the workers need OneFlow.
        options: for `run`.
    """

    name: str
    how: str
    code: int
    words: str
    oneflow: bool = False
    options: tuple[str, ...] = ()


WORKER_FAULTS = (
    Fault("worker: kill -9", "kill", 137, "rank 1 on n2 was ended by SIGKILL"),
    Fault("worker raises", "raise", 1, "rank 1 on n2 ended with exit code 1"),
    Fault("worker exits 3", "exit", 3, "rank 1 on n2 ended with exit code 3"),
    Fault(
        "worker fails, another ignores TERM",
        "stubborn",
        3,
        "rank 1 on n2 ended with exit code 3",
        options=("--grace", "1"),
    ),
    Fault(
        "worker fails, another's grandchild ignores TERM",
        "grandchild",
        3,
        "rank 1 on n2 ended with exit code 3",
        options=("--grace", "1"),
    ),
    Fault("out of memory (RLIMIT_AS)", "memory", 1, "rank 1 on n2 ended with exit code 1"),
    Fault(
        "worker: kill -9 in a collective",
        "collective",
        137,
        "rank 1 on n2 was ended by SIGKILL",
        oneflow=True,
    ),
    Fault(
        "rank 0 dies in the rendezvous",
        "rendezvous",
        137,
        "rank 0 on n1 was ended by SIGKILL",
        oneflow=True,
    ),
)
# Nobody has failed in these: it is their silence that ends them, and no attempt follows.
WAITS = (
    Fault(
        "worker exits 0 before the rendezvous (--start-timeout 5)",
        "early",
        124,
        "the time of --start-timeout was over",
        oneflow=True,
        options=("--start-timeout", "5"),
    ),
    Fault(
        "worker exits 0, another waits in a collective (--hang-timeout 4)",
        "leaves",
        124,
        "hung: no output, no metric and no step for 4 s",
        oneflow=True,
        options=("--hang-timeout", "4"),
    ),
)
# What `make test` runs; the others run with the whole matrix.
OFTEN = {
    ("kill", "attached"),
    ("kill", "detached"),
    ("kill", "restart"),
    ("grandchild", "attached"),
    ("rendezvous", "attached"),
}


def cells() -> list[object]:
    """Returns the cells of the faults that a worker makes."""
    found = []
    for fault in WORKER_FAULTS:
        for mode in MODES:
            if fault.how == "rendezvous" and mode == "detached":
                continue  # `run -d` returns when the rendezvous is over
            marks = [] if (fault.how, mode) in OFTEN else [pytest.mark.soak]
            marks += [pytest.mark.oneflow] if fault.oneflow else []
            found.append(pytest.param(fault, mode, marks=marks, id=f"{fault.how}-{mode}"))
    return found


@pytest.mark.parametrize(("fault", "mode"), cells())
def test_a_worker_fails(lab_of: Factory, runtime_python: Path, fault: Fault, mode: str) -> None:
    lab = lab_of(2)
    lab.manifest(runtime_python if fault.oneflow else sys.executable, lab.ssh_nodes())
    trial = Trial(lab, fault.name, mode, fault.how, fault.options)
    trial.begin()
    if fault.how == "rendezvous":
        died = trial.meeting / "go"
        wait_until(died.exists, "the death of rank 0", 60.0)
        trial.struck_at = died.stat().st_mtime
    else:
        trial.wait_up()
        trial.strike(lambda: trial.meet("go"))
    if mode == "detached":
        # Its own node ends what it has; the others hear of it from who attaches.
        rank = "RANK=1"
        wait_until(lambda: not workers_of(lab.run_id(), 0, rank), "its end on its node", 30.0)
        trial.attach()
    trial.watch_stop()
    code = trial.end()
    trial.detected("worker_exited")
    judge(trial, code, fault.code, fault.words)
    if fault.how != "rendezvous":
        trial.assert_logs()


@pytest.mark.soak
@pytest.mark.oneflow
@pytest.mark.parametrize("fault", WAITS, ids=[fault.how for fault in WAITS])
def test_a_worker_ends_well_and_too_early(
    lab_of: Factory, runtime_python: Path, fault: Fault
) -> None:
    lab = lab_of(2)
    lab.manifest(runtime_python, lab.ssh_nodes())
    trial = Trial(lab, fault.name, "attached", fault.how, fault.options)
    trial.begin()
    trial.wait_up()
    trial.strike(lambda: trial.meet("go"))
    trial.watch_stop()
    judge(trial, trial.end(), fault.code, fault.words)
    trial.assert_logs()


def judge(trial: Trial, code: int, expected: int, words: str) -> None:
    """Asserts how it ended and what was said; keeps what was measured."""
    if trial.mode == "restart":
        assert code == 0, trial.said
        [told] = trial.causes()
        assert words in told
        assert f"attempt 0 failed: {told}" in trial.said
    else:
        told = trial.last_line
        assert (code, words in told) == (expected, True), trial.said
    trial.keep(code, told)


# What goes wrong with a node, or on the way there


def patient(lab: Lab, fault: str, mode: str, *options: str) -> Trial:
    """Returns the trial of a job that goes on until it is told to end."""
    return Trial(lab, fault, mode, "patient", options)


def agent_of(lab: Lab, node: str) -> int:
    """Returns the process of the run's agent on a node."""
    [pid] = [
        event["pid"]
        for event in lab.events()
        if event["event"] == "agent_ready" and event["node"] == node
    ][-1:]
    return int(pid)


def modes(*often: str) -> list[object]:
    """Returns the modes as parameters; `make test` runs those that are named."""
    return [pytest.param(mode, marks=() if mode in often else pytest.mark.soak) for mode in MODES]


@pytest.mark.parametrize("mode", modes("attached", "restart"))
def test_an_agent_is_killed(lab_of: Factory, mode: str) -> None:
    lab = lab_of(2)
    lab.manifest(sys.executable, lab.ssh_nodes())
    trial = patient(lab, "agent: kill -9", mode)
    trial.begin()
    trial.wait_up()
    trial.strike(lambda: os.kill(agent_of(lab, "n2"), signal.SIGKILL))
    if mode == "detached":
        wait_until(lambda: not workers_of(lab.run_id(), 0, "RANK=1"), "its workers' end", 30.0)
        trial.attach()
    trial.watch_stop()
    code = trial.end()
    if mode != "detached":
        trial.detected("link_dropped", "agent_gone")
    if mode == "restart":
        judge(trial, code, 0, "n2: its agent")
    else:
        assert "n2: its agent" in trial.said
        judge(trial, code, 69, "cannot use n2")
    trial.assert_logs()


@pytest.mark.parametrize("mode", ["attached", "detached"])
def test_a_launcher_is_killed(lab_of: Factory, mode: str) -> None:
    """An attached run goes on with who attaches in time; a detached one goes on anyhow."""
    lab = lab_of(2)
    lab.manifest(sys.executable, lab.ssh_nodes())
    trial = patient(lab, "launcher: kill -9, then attach", mode)
    trial.begin()
    trial.wait_up()
    if trial.process is None:
        trial.attach()
        lab.wait_event("link_restored")
    assert trial.process is not None
    trial.strike(trial.process.kill)
    trial.process.communicate()
    assert workers_of(lab.run_id())
    trial.attach()
    trial.meet("end")
    trial.watch_stop()
    judge(trial, trial.end(), 0, "exit 0")
    trial.assert_logs()
    assert_last_lines(trial)


def assert_last_lines(trial: Trial) -> None:
    """Asserts that what was written after the fault is here too, once, and nothing else."""
    for rank in range(trial.world):
        [log] = trial.lab.run_dir().glob(f"logs/*/rank-{rank}.stdout.log")
        assert log.read_text() == early_lines(rank) + f"the last line of rank {rank}\n"


@pytest.mark.soak
def test_a_launcher_is_killed_and_nobody_attaches(lab_of: Factory) -> None:
    lab = lab_of(2)
    lab.manifest(sys.executable, lab.ssh_nodes())
    trial = patient(lab, "launcher: kill -9, nobody attaches (--lease 15)", "attached")
    trial.options = ("--lease", "15")
    trial.begin()
    trial.wait_up()
    assert trial.process is not None
    trial.strike(trial.process.kill)
    trial.process.communicate()
    trial.watch_stop()
    trial.attach()
    code = trial.end()
    trial.detected("lease_ended")
    judge(trial, code, 130, "no launcher followed it for longer than its lease")
    trial.assert_logs()


@pytest.mark.parametrize("mode", modes("attached"))
def test_sshd_is_killed_and_starts_again(
    tmp_path: Path, netns_hosts: Callable[[int], list[NetHost]], mode: str
) -> None:
    hosts = netns_hosts(2)
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes())
    trial = patient(lab, "sshd killed, and started again", mode)
    trial.begin()
    trial.wait_up()
    ssh = hosts[1].ssh
    assert ssh is not None
    trial.strike(lambda: kill_sshd(ssh.pid))
    if mode != "detached":
        lab.wait_event("link_dropped")
    assert len(workers_of(lab.run_id())) == 2
    with started_again(ssh, hosts[1].namespace):
        if mode == "detached":
            trial.attach()
        else:
            lab.wait_event("link_restored")
        trial.meet("end")
        goes_on(trial, "link_dropped")


def kill_sshd(pid: int) -> None:
    """Kills an sshd with its sessions' own processes, as a crash does, and nothing they started."""
    for each in (pid, *descendants(pid)):
        if command_of(each).startswith(("sshd", "/usr/sbin/sshd")):
            os.kill(each, signal.SIGKILL)


def goes_on(trial: Trial, *kinds: str) -> None:
    """Asserts that the run came to its good end as if nothing had been, at the first attempt."""
    code = trial.end()
    if trial.mode != "detached":
        trial.detected(*kinds)
    assert code == 0, trial.said
    assert trial.causes() == []
    assert_last_lines(trial)
    trial.keep(code, trial.last_line)


@pytest.mark.parametrize("mode", modes("attached"))
def test_the_network_is_cut_for_a_while(
    tmp_path: Path, netns_hosts: Callable[[int], list[NetHost]], mode: str
) -> None:
    hosts = netns_hosts(2)
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes())
    trial = patient(lab, "network cut for 10 s", mode)
    trial.begin()
    trial.wait_up()
    trial.strike(hosts[1].link_down)
    with after(10.0, hosts[1].link_up):
        if mode == "detached":
            trial.attach()
    trial.meet("end")
    code = trial.end()
    assert code == 0, trial.said
    assert trial.causes() == []
    assert_last_lines(trial)
    trial.keep(code, trial.last_line)


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
def test_the_network_is_cut_for_ever(
    tmp_path: Path, netns_hosts: Callable[[int], list[NetHost]], mode: str
) -> None:
    hosts = netns_hosts(2)
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes())
    trial = patient(lab, "network cut for ever (--lease 15)", mode, "--lease", "15")
    if mode == "restart":
        trial.options += ("--min-nodes", "1")
    trial.begin()
    trial.wait_up()
    if mode != "detached":
        trial.wait_logs()
    trial.strike(hosts[1].link_down)
    if mode == "detached":
        trial.attach()
        code = trial.end_of_launcher()
        assert (code, "cannot use n2" in trial.last_line) == (69, True), trial.said
        hosts[1].link_up()
        assert lab.flowlaunch("reap", "last", "--grace", "0").last_line == (
            "0 survivors on 2 nodes"
        )
        trial.watch_stop()
        lab.no_survivors()
        trial.keep(code, trial.last_line)
        return
    trial.watch_stop(90.0)
    code = trial.end(120.0)
    trial.detected("link_dropped")
    if mode == "restart":
        judge(trial, code, 0, "n2: ")
    else:
        judge(trial, code, 69, "cannot use n2")
    trial.assert_logs()


@pytest.mark.parametrize("mode", modes("attached"))
def test_a_nodes_disk_is_full(
    tmp_path: Path, netns_hosts: Callable[[int], list[NetHost]], mode: str
) -> None:
    # A namespace has the mounts of the moment when it is entered.
    with small_disk(tmp_path / "net" / "n2" / "home" / ".flowlaunch", "96m"):
        lab = lab_of_namespaces(tmp_path, netns_hosts(2))
        lab.manifest(sys.executable, lab.ssh_nodes())
        trial = Trial(lab, "node's disk full", mode, "disk")
        trial.begin()
        trial.wait_up()
        trial.strike(lambda: trial.meet("go"))
        if mode == "detached":
            rank = "RANK=1"
            wait_until(lambda: not workers_of(lab.run_id(), 0, rank), "its end on its node", 30.0)
            trial.attach()
        trial.watch_stop()
        code = trial.end()
        trial.detected("worker_exited")
        if mode == "restart":
            # What filled the disk is still there, and so the node is not ready again.
            assert code in (0, 69), trial.said
            assert "rank 1 on n2 ended with exit code 1" in trial.causes()[0]
            trial.keep(code, trial.causes()[0])
        else:
            judge(trial, code, 1, "rank 1 on n2 ended with exit code 1 (OSError: [Errno 28]")
        trial.assert_logs()


def test_the_launchers_disk_is_full(lab_of: Factory) -> None:
    lab = lab_of(2)
    lab.manifest(sys.executable, lab.ssh_nodes())
    flood = "import time\nwhile True: print('x' * 1000); time.sleep(0.0005)\n"
    with small_disk(lab.top / "runs", "1m"):
        lab.write("job.py", flood)
        done = lab.flowlaunch("run", "job.py", limit_s=60.0)
        assert done.code == 74, done.err[-2000:]
        assert "No space left on device" in done.err[-1000:]
        # The agents wait for their lease: what is not here is there.
        run_id = lab.run_id()
        wait_until(lambda: not workers_of(run_id), "the end of every worker", 20.0)
        for line in lab.survivors():
            os.kill(int(line.split()[0]), signal.SIGKILL)


@pytest.mark.soak
def test_the_ctrl_port_is_taken(
    tmp_path: Path, netns_hosts: Callable[[int], list[NetHost]]
) -> None:
    hosts = netns_hosts(2)
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes(), ctrl_port=CTRL_PORT)
    listen = (
        "import socket, time; s = socket.socket(); "
        f"s.bind(('', {CTRL_PORT})); s.listen(); print(1, flush=True); time.sleep(600)"
    )
    entry = ["ip", "netns", "exec", hosts[0].namespace, sys.executable, "-c", listen]
    with subprocess.Popen(entry, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        trial = patient(lab, "ctrl_port taken", "attached")
        trial.struck_at = time.time()
        trial.begin()
        code = trial.end()
        holder.kill()
    assert str(CTRL_PORT) in trial.said
    trial.detected("node_unusable", "node_failed")
    judge(trial, code, 69, "cannot use n1")


# A person who ends it


PHASES = ("connect", "ship", "sync", "start", "train", "collect")


@pytest.mark.parametrize(
    ("phase", "times"),
    [
        pytest.param(phase, times, marks=() if (phase, times) == ("ship", 1) else pytest.mark.soak)
        for phase in PHASES
        for times in (1, 2)
    ],
)
def test_ctrl_c(
    tmp_path: Path, netns_hosts: Callable[[int], list[NetHost]], phase: str, times: int
) -> None:
    hosts = netns_hosts(2)
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes())
    words = "once" if times == 1 else "twice"
    trial = patient(lab, f"Ctrl-C, {words}, in phase {phase}", "attached")
    ssh = hosts[1].ssh
    assert ssh is not None
    if phase == "connect":
        os.kill(ssh.pid, signal.SIGSTOP)
    if phase == "ship":
        lab.write("data.bin", "").write_bytes(os.urandom(48 << 20))
    if phase == "collect":
        trial.how = "saves"
    try:
        trial.begin()
        assert trial.process is not None
        reach(trial, phase)
        trial.strike(lambda: trial.process and trial.process.send_signal(signal.SIGINT))
        if times == 2:
            lab.wait_event("interrupted")
            trial.process.send_signal(signal.SIGINT)
        trial.watch_stop()
        code = trial.end_of_launcher()
    finally:
        if phase == "connect":
            os.kill(ssh.pid, signal.SIGCONT)
    trial.detected("interrupted")
    lab.no_survivors(20.0)
    if phase == "collect":
        # All the workers ended with 0: once waits for what is on its way, twice does not.
        assert code in (0, 74, 130), trial.said
        trial.keep(code, trial.last_line)
    else:
        judge(trial, code, 130, "exit 130: interrupted")
    if phase == "train":
        trial.assert_logs()


def reach(trial: Trial, phase: str) -> None:
    """Waits until the run is in this phase."""
    lab = trial.lab
    if phase == "connect":
        lab.wait_event("agent_ready")  # of the other node
    elif phase == "ship":
        files = lab.hosts[1].home / ".flowlaunch" / "files"
        wait_until(lambda: files.is_dir() and any(files.rglob("*")), "a file on its way", 60.0)
    elif phase == "sync":
        lab.wait_event("node_prepared")
    elif phase == "start":
        lab.wait_event("worker_started")
    elif phase == "train":
        trial.wait_up()
    else:
        wait_until(lambda: is_collecting(lab), "the end of the workers", 60.0)


def is_collecting(lab: Lab) -> bool:
    """Whether all workers of the lab's only run have ended, and what they made is on its way."""
    written = [path.read_text() for path in lab.top.glob("runs/*/events.jsonl")]
    return any('"phase": "collecting"' in text for text in written)


def test_the_terminal_hangs_up(lab_of: Factory) -> None:
    lab = lab_of(2)
    lab.manifest(sys.executable, lab.ssh_nodes())
    trial = patient(lab, "SIGHUP of the terminal", "attached")
    trial.begin()
    trial.wait_up()
    process = trial.process
    assert process is not None
    trial.strike(lambda: process.send_signal(signal.SIGHUP))
    trial.watch_stop()
    code = trial.end()
    trial.detected("interrupted")
    judge(trial, code, 130, "exit 130: interrupted")
    trial.assert_logs()


# What needs OneFlow


@pytest.mark.soak
@pytest.mark.oneflow
@pytest.mark.parametrize("mode", ["attached"])
def test_a_rank_never_starts(lab_of: Factory, runtime_python: Path, mode: str) -> None:
    lab = lab_of(2)
    lab.manifest(runtime_python, lab.ssh_nodes())
    trial = Trial(lab, "one rank never starts (--start-timeout 12)", mode, "never")
    trial.options = ("--start-timeout", "12")
    trial.begin()
    lab.wait_event("worker_started")
    trial.struck_at = time.time()
    trial.watch_stop()
    code = trial.end()
    assert "waiting for n2:1" in trial.said
    judge(trial, code, 124, "--start-timeout")


CLOCK_JOB = """
import os, select, sys
meeting, rank = sys.argv[2], int(os.environ["RANK"])
if os.environ["FLOWLAUNCH_ATTEMPT"] != "0":
    sys.exit(0)
if rank == 1:
    with open(os.path.join(meeting, "pid"), "w") as file:
        file.write(str(os.getpid()))
open(os.path.join(meeting, "up-%d" % rank), "w").close()
while not os.path.exists(os.path.join(meeting, "go")):
    select.select([], [], [], 0.002)  # a changed clock breaks time.sleep
if rank == 0:
    peer = open(os.path.join(meeting, "pid")).read()
    while os.path.exists("/proc/" + peer):
        select.select([], [], [], 0.002)  # a changed clock breaks time.sleep
    select.select([], [], [], 0.02)  # more than clocks can be told apart by, less than a stop takes
    sys.exit(4)
sys.exit(3)
"""


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["attached", "restart"])
def test_a_clock_is_off(
    tmp_path: Path, netns_hosts: Callable[..., list[NetHost]], mode: str
) -> None:
    """By the clocks as they stand, the node that is ahead would have failed last."""
    hosts = netns_hosts(2, ahead_s={"n2": 300})
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes())
    trial = Trial(lab, "clock of one node 300 s ahead", mode, "clock")
    trial.job = CLOCK_JOB
    trial.begin()
    trial.wait_up()
    ahead = {event["node"]: event["ahead_s"] for event in lab.events() if "ahead_s" in event}
    assert abs(ahead["n1"]) < 2 and abs(ahead["n2"] - 300) < 2
    trial.strike(lambda: trial.meet("go"))
    trial.watch_stop()
    code = trial.end()
    trial.detected("worker_exited")
    judge(trial, code, 3, "rank 1 on n2 ended with exit code 3")
