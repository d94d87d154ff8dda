"""How long `logs --tail 10` and `logs --since` take on a log of 10 GB, beside `tail -n 10`.

The log is sparse: a hole of 10 GB with real lines behind it, so that it costs no disk; with
`--real` it is written in full. Its index of times is as long as a log of that size has. Both
commands are measured whole, from their start to their end, in turns; medians are shown.

    python benchmarks/tail.py [--gigabytes 10] [--rounds 9] [--real]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launcher.collect.log_times import RECORD  # noqa: E402
from launcher.core.paths import RunPaths  # noqa: E402
from launcher.store.atomic import replace_json  # noqa: E402

LINE = b"epoch 3 step 12345/200000 loss 0.69314718 images/s 1234.5 lr 0.0100 grad_norm 1.2345 abc\n"
LAST = b"".join(b"last line %d\n" % number for number in range(100))
RECORDS = 1_000_000
RUN_ID = "job-20260102-030405-a1b2"
T0 = 1_700_000_000.0


def make_run(runs: Path, size: int, *, real: bool) -> Path:
    """Makes a run of one worker with one log of that size; returns the log."""
    paths = RunPaths(runs / RUN_ID)
    log = Path(paths.log("gpu1", 0, "stdout"))
    log.parent.mkdir(parents=True)
    replace_json(Path(paths.record), {"id": RUN_ID, "state": "ended", "started": T0})
    replace_json(Path(paths.plan), {"ranks": [{"rank": 0, "node": "gpu1"}]})
    with log.open("wb") as file:
        if real:
            piece = LINE * 10_000
            for _ in range(size // len(piece)):
                file.write(piece)
        else:
            file.truncate(size)
            file.seek(size)
            file.write(b"\n")
        file.write(LAST)
    step = size // RECORDS
    records = (RECORD.pack(T0 + number, number * step) for number in range(RECORDS))
    last = RECORD.pack(T0 + RECORDS, log.stat().st_size - len(LAST))
    Path(paths.log_times("gpu1", 0, "stdout")).write_bytes(b"".join(records) + last)
    return log


def measure(command: Sequence[str]) -> tuple[float, bytes]:
    """Returns how long a command takes, seconds, and what it prints."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    return time.monotonic() - started, done.stdout


def main() -> None:
    """Prints a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gigabytes", type=float, default=10, help="the log's size (10)")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each (9)")
    parser.add_argument("--real", action="store_true", help="write the log in full")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        runs = Path(directory)
        log = make_run(runs, int(options.gigabytes * 1e9), real=options.real)
        logs = [sys.executable, "-m", "launcher.cli.main", "logs", RUN_ID, "--runs-dir", str(runs)]
        commands = {
            "logs --tail 10": [*logs, "--tail", "10"],
            "logs --since": [*logs, "--since", str(T0 + RECORDS - 0.5)],
            "tail -n 10": ["tail", "-n", "10", str(log)],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        expected = {"logs --tail 10": 10, "logs --since": 100, "tail -n 10": 10}
        for _ in range(options.rounds):
            for name, command in commands.items():
                took, printed = measure(command)
                times[name].append(took)
                if name in expected and printed.count(b"last line") != expected[name]:
                    sys.exit(f"{name} printed {printed[:500]!r}")
        kind = "written in full" if options.real else "sparse"
        print(f"a log of {log.stat().st_size / 1e9:.1f} GB, {kind}, {RECORDS:,} times in its index")
        for name, all_ in times.items():
            median, worst = statistics.median(all_) * 1000, max(all_) * 1000
            print(f"{name:15s} {median:5.0f} ms  (worst {worst:.0f})")


if __name__ == "__main__":
    main()
