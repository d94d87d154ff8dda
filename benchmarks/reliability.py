"""Tries the whole matrix of faults, and writes what was measured into docs/reliability.md.

The cells are those of tests/e2e/test_matrix.py; the table is written only where all that ran have
passed. Needs root, sshd, iproute2, libfaketime (Debian's package faketime) and the OneFlow runtime.

    python benchmarks/reliability.py [-k EXPRESSION]
    python benchmarks/reliability.py --measured FILE…    what such runs measured before
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.faults import MEASURES  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
HEAD = (
    "| fault | mode | exit code | told | detected after, s | all stopped after, s |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
)


def measure(expression: str) -> list[dict[str, Any]]:
    """Runs the cells and returns what each of them measured."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "measured.jsonl"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "tests/e2e/test_matrix.py",
            "-k",
            expression,
        ]
        env = {**os.environ, MEASURES: str(path)}
        if subprocess.run(command, cwd=ROOT, env=env, check=False).returncode:
            sys.exit("some cells failed: the table is not written")
        return read([path])


def read(paths: list[Path]) -> list[dict[str, Any]]:
    """Returns what cells kept there, the last word of each; only a cell that passed keeps one."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    cells = map(json.loads, lines)
    return list({(cell["fault"], cell["mode"]): cell for cell in cells}.values())


def row(cell: dict[str, Any]) -> str:
    """Returns a cell as a row of the table."""
    told = str(cell["told"]).removeprefix(f"exit {cell['code']}: ")
    times = [_seconds(cell[key]) for key in ("detected_s", "stopped_s")]
    fields = [cell["fault"], cell["mode"], str(cell["code"]), told.replace("|", "\\|"), *times]
    return f"| {' | '.join(fields)} |\n"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="only these cells (pytest's)")
    parser.add_argument(
        "--measured",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help=f"files that ${MEASURES} named when the cells ran, instead of running them",
    )
    options = parser.parse_args()
    cells = read(options.measured) if options.measured else measure(options.k)
    machine = (
        f"{os.cpu_count()} cores, Linux {platform.release()}, CPython {platform.python_version()}"
    )
    note = f"{len(cells)} cells, measured on one machine with {machine}.\n\n"
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + note + HEAD + "".join(map(row, cells)) + END + after)


if __name__ == "__main__":
    main()
