"""What OneFlow a worker would find: flowlaunch's own runtime is read, a site's python is run.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import glob
import json
import os
import re
import shutil
from typing import Any, Dict

from launcher.agent import runtime_store

# A first import from a cold network disk takes its time.
_IMPORT_LIMIT_S = 120.0

# With these set, `import oneflow` waits for other ranks.
_RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK")

_PROBE = """
import json, sys
found = {"python": "%d.%d.%d" % sys.version_info[:3]}
try:
    import numpy, oneflow
    left = numpy.ones((2, 3), dtype="float32")
    if oneflow.matmul(oneflow.tensor(left), oneflow.tensor(left.T)).numpy()[1][1] != 3:
        raise ValueError("OneFlow computes wrongly")
    commit = getattr(oneflow, "__git_commit__", "")
    found["oneflow"] = oneflow.__version__ + ("+" + commit if commit else "")
    found["numpy"] = numpy.__version__
except BaseException as error:
    found["error"] = "%s: %s" % (type(error).__name__, error)
print("\\n" + json.dumps(found), flush=True)
"""


def python_facts(python: str) -> Dict[str, Any]:
    """Returns ``{"path", "python", "oneflow", "numpy", "nccl"}`` of the workers' interpreter.

    ``oneflow`` is version and commit. Where it cannot be used, ``error`` says why instead.

    Args:
        python: a path, or "auto" for flowlaunch's own runtime.
    """
    if python != "auto":
        return _asked(python)
    found = runtime_store.find_runtime(runtime_store.cache_directory())
    if found is None:
        return {"error": "the OneFlow runtime is missing or damaged", "missing": True}
    return _read(found)


def _asked(python: str) -> Dict[str, Any]:
    # Not needed where the runtime is flowlaunch's own, which is proven without being run.
    import subprocess

    from launcher.agent import workers

    path = shutil.which(os.path.expanduser(python))
    if path is None:
        return {"error": "%s is not an executable there" % python}
    environ = workers.worker_environment({}, {})
    for name in _RENDEZVOUS:
        environ.pop(name, None)
    try:
        done = subprocess.run(
            [path, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            timeout=_IMPORT_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"path": path, "error": "importing OneFlow took over %.0f s" % _IMPORT_LIMIT_S}
    except OSError as error:
        return {"path": path, "error": "%s does not start: %s" % (path, error.strerror)}
    return dict(_answer(done.returncode, done.stdout, done.stderr), path=path)


def _answer(status: int, output: bytes, errors: bytes) -> Dict[str, Any]:
    try:
        found: Dict[str, Any] = json.loads(output.decode("utf-8").splitlines()[-1])
        return found
    except (ValueError, IndexError):
        said = errors.decode("utf-8", "replace").strip().splitlines()
        return {"error": ": ".join(["it ended with status %d" % status, *said[-1:]])}


def _read(python: str) -> Dict[str, Any]:
    """Reads what a whole runtime holds; to import it would take a second for nothing new."""
    top = os.path.dirname(os.path.dirname(python))
    packages = "".join(glob.glob(os.path.join(top, "lib", "python*", "site-packages"))[:1])
    commit = _first(r'__git_commit__ = "(\w+)"', os.path.join(packages, "oneflow", "version.py"))
    oneflow = _version(packages, "oneflow")
    return {
        "path": python,
        "python": _first(r"(?m)^version\S* = (\S+)", os.path.join(top, "pyvenv.cfg")),
        "oneflow": oneflow + ("+" + commit if commit else ""),
        "numpy": _version(packages, "numpy"),
        "nccl": _version(packages, "nvidia_nccl*"),
    }


def _version(packages: str, name: str) -> str:
    for path in glob.glob(os.path.join(packages, name + "-*.dist-info")):
        return os.path.basename(path)[: -len(".dist-info")].rpartition("-")[2]
    return ""


def _first(pattern: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.search(pattern, file.read())
    except OSError:
        return ""
    return found.group(1) if found else ""
