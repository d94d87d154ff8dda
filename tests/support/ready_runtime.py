"""A cache with a runtime that counts as whole: stamped as a build does it, but tiny."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from launcher.agent import runtime_store
from launcher.agent.runtime_lock import SPEC


def make_ready_runtime(
    cache: Path,
    commit: str = "381b12c",
    numpy: str = "1.26.4",
    interpreter: str = sys.executable,
) -> Path:
    """Writes a runtime for `check` to find and read; returns its python.

    It has the names and stamps of a real one, and nothing that OneFlow could run on.
    """
    minor = SPEC.pythons[0]
    top = Path(runtime_store.runtime_directory(str(cache), SPEC, minor))
    packages = top / "lib" / f"python{minor}" / "site-packages"
    for name in ("oneflow", "oneflow-0.9.0.dist-info", f"numpy-{numpy}.dist-info"):
        (packages / name).mkdir(parents=True)
    version = f'__version__ = "0.9.0"\n__git_commit__ = "{commit}"\n'
    (packages / "oneflow" / "version.py").write_text(version)
    (top / "bin").mkdir()
    (top / "bin" / "python").symlink_to(os.path.realpath(interpreter))
    (top / "pyvenv.cfg").write_text(f"version = {minor}.13\n")
    runtime_store.write_stamp(str(top), os.path.realpath(interpreter))
    return top / "bin" / "python"
