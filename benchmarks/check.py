"""How long `flowlaunch check` takes on many nodes, beside pdsh.

Every node is an address of 127.0.1.x that real sshds listen on, with a runtime in its cache.
`check` logs in to all, asks each what it is and has, and has them dial each other, all ways: 4096
of 64. pdsh only logs in and runs ``true``. They take turns, and medians are compared.

    python benchmarks/check.py [--nodes 16,64] [--rounds 5]

Needs sshd and pdsh (Debian: openssh-server pdsh), and Linux's /proc.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.launch import Bench, measure, servers  # noqa: E402
from tests.support.ready_runtime import make_ready_runtime  # noqa: E402


def _check(bench: Bench) -> Sequence[str]:
    return [sys.executable, "-m", "launcher.cli.main", "check"]


def _use_ready_runtime(bench: Bench) -> None:
    """Has the nodes want flowlaunch's own runtime, and lays one into their cache."""
    for home in bench.host.home.parent.parent.glob("*/home"):
        make_ready_runtime(home / ".cache" / "flowlaunch")
    manifest = bench.top / "cluster.yaml"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**fields, "defaults": {"python": "auto"}}))


def compare(count: int, rounds: int) -> dict[str, float]:
    """Measures both on so many nodes, in turns; returns medians, seconds."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        addresses = [f"127.0.1.{number}" for number in range(1, count + 1)]
        with servers(top / "ssh", addresses) as host:
            bench = Bench(top, host, count)
            _use_ready_runtime(bench)
            commands = {"check": _check(bench), "pdsh": bench.pdsh()}
            times: dict[str, list[float]] = {name: [] for name in commands}
            for command in commands.values():  # Fills caches, ours and the kernel's.
                measure(bench, command)
            for _ in range(rounds):
                for name, command in commands.items():
                    times[name].append(measure(bench, command)[0])
    return {name: statistics.median(all_) for name, all_ in times.items()}


def main() -> None:
    """Prints a row for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", default="16,64", help="numbers of nodes (16,64)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (5)")
    options = parser.parse_args()
    print("nodes     check     pdsh   to pdsh")
    for count in map(int, options.nodes.split(",")):
        row = compare(count, options.rounds)
        print(
            f"{count:5d}  {row['check']:6.2f} s  {row['pdsh']:5.2f} s  "
            f"{row['check'] / row['pdsh']:6.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
