"""What a node is and has, as far as a run cares: asked once, told as one JSON object.

The object's keys, each absent or null where it cannot be known:

    hostname, user, cores, memory_bytes, memory_free_bytes, shm_free_bytes
    home_free_bytes, cache_free_bytes   room where runs and the runtime are kept
    open_files, processes               the limits that workers will have, null for none
    login_address                       this machine's own address in the login that we came by
    addresses                           see `networks.addresses`
    gpus, gpu_problem                   see `gpus.gpus`
    oneflow                             see `python_facts.python_facts`
    same                                {key: value}: what should be equal on all nodes
    leftovers                           see `leftovers`
    data                                see `data_facts.data_facts`
    interpreter                         the Python that a runtime would be built on

Shipped to nodes: Python 3.7 and its standard library only.
"""

import getpass
import os
import resource
import shutil
import socket
from typing import Any, Dict, List, NamedTuple, Optional

from launcher.agent import data_facts, gpus, networks, python_facts, runtime_store
from launcher.wire import events

# Those that decide which code OneFlow's libraries run.
_CPU_FLAGS = ("avx", "avx2", "fma", "avx512f")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Questions(NamedTuple):
    """What is asked of a node.

    Attributes:
        python: the workers' interpreter, "auto" for flowlaunch's own runtime, "" not to be asked.
        data: paths whose content should be equal everywhere.
        full_hash: whether every byte of them is read, else only some of each file.
        interpreter: whether to look for the Python that a runtime would be built on.
    """

    python: str
    data: List[str]
    full_hash: bool
    interpreter: bool


def report(command: events.ReportFacts, run_dir: str) -> events.FactsReported:
    """Answers the launcher's questions.

    Args:
        command: the questions.
        run_dir: this run's own directory, ``<root>/runs/<run>/<node>``.
    """
    questions = Questions(**events.unpack_json(command.data))
    return events.FactsReported(events.pack_json(facts(questions, run_dir)))


def facts(questions: Questions, run_dir: str) -> Dict[str, Any]:
    """Returns what is known of this node; see the module's own words for the keys."""
    found: Dict[str, Any] = {
        "hostname": socket.gethostname(),
        "user": _user(),
        "cores": len(os.sched_getaffinity(0)),
        "home_free_bytes": _free_bytes(run_dir),
        "cache_free_bytes": _free_bytes(runtime_store.cache_directory()),
        "shm_free_bytes": _free_bytes("/dev/shm"),  # noqa: S108 - asked, not written
        "open_files": _limit(resource.RLIMIT_NOFILE),
        "processes": _limit(resource.RLIMIT_NPROC),
        "login_address": _login_address(),
        "addresses": networks.addresses(),
        "gpus": gpus.gpus(),
        "gpu_problem": gpus.problem(),
        "leftovers": leftovers(run_dir),
        "data": [data_facts.data_facts(path, questions.full_hash) for path in questions.data],
        "oneflow": python_facts.python_facts(questions.python) if questions.python else None,
        "interpreter": _interpreter() if questions.interpreter else None,
    }
    found.update(_memory())
    found["same"] = _same(found["oneflow"] or {})
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def _free_bytes(path: str) -> Optional[int]:
    """Returns the room at a path, or at the directory nearest to it that there is."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _limit(kind: int) -> Optional[int]:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def _login_address() -> Optional[str]:
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else None


def _memory() -> Dict[str, Optional[int]]:
    keys = {"MemTotal": "memory_bytes", "MemAvailable": "memory_free_bytes"}
    found: Dict[str, Optional[int]] = {}
    for line in _lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        if name in keys:
            found[keys[name]] = int(value.split()[0]) * 1024
    return found


def _lines(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _same(oneflow: Dict[str, Any]) -> Dict[str, str]:
    """Returns what should be equal on all nodes, so that they compute the same."""
    environ = os.environ
    nccl = sorted("%s=%s" % pair for pair in environ.items() if pair[0].startswith("NCCL_"))
    found = {
        "libc": _libc(),
        "machine": os.uname().machine,
        "cpu flags": " ".join(flag for flag in _CPU_FLAGS if flag in _cpu_flags()),
        "gpu driver": gpus.driver(),
        "nccl settings": " ".join(nccl),
        # The values may hold passwords.
        "proxies": " ".join(name for name in _PROXIES if name in map(str.lower, environ)),
        "locale": environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG", ""),
    }
    for key in ("oneflow", "python", "numpy", "nccl"):
        if oneflow.get(key):
            found[key] = str(oneflow[key])
    return found


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return "not glibc"


def _cpu_flags() -> List[str]:
    flags = [line for line in _lines("/proc/cpuinfo") if line.startswith("flags")]
    return flags[0].split() if flags else []


def leftovers(run_dir: str) -> List[Dict[str, Any]]:
    """Returns what other runs left here: ``{"run", "node", "pid"}``, pid 0 where nothing lives.

    Args:
        run_dir: this run's own directory; other nodes of this run are no leftovers.
    """
    own = os.path.dirname(run_dir)
    found = []
    for run in _names(os.path.dirname(own)):
        if run != os.path.basename(own):
            top = os.path.join(os.path.dirname(own), run)
            found += [(run, node, os.path.join(top, node)) for node in _names(top)]
    agents = _agents() if found else {}
    return [
        {"run": run, "node": node, "pid": agents.get(os.path.realpath(path), 0)}
        for run, node, path in found
    ]


def _names(directory: str) -> List[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _agents() -> Dict[str, int]:
    """Returns the agents that live here, by the directory of their run, which is their own."""
    found = {}
    for name in filter(str.isdigit, _names("/proc")):
        try:
            with open("/proc/%s/cmdline" % name, "rb") as file:
                if b'"run_id"' in file.read():
                    found[os.readlink("/proc/%s/cwd" % name)] = int(name)
        except OSError:
            continue
    return found


def _interpreter() -> Optional[Dict[str, str]]:
    from launcher.agent import interpreters
    from launcher.agent.runtime_lock import SPEC

    search = interpreters.find_interpreter(runtime_store.cache_directory(), SPEC.pythons)
    if search.found is None:
        return None
    return {"path": search.found.path, "minor": search.found.minor}
