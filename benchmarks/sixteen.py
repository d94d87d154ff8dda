"""How fast a failure of one worker of sixteen ends a run: four hosts, four workers on each.

The hosts are network namespaces with an sshd of their own, the workers plain Python. One worker
dies, by SIGKILL or by an exception; from that moment it is measured when the launcher knows, when
no worker lives on any host any more, and when the command has ended. Needs root.

    python benchmarks/sixteen.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.faults import Trial  # noqa: E402
from tests.support.lab import lab_of_namespaces  # noqa: E402
from tests.support.netns import ssh_namespaces  # noqa: E402

HOSTS, SLOTS = 4, 4
LIMITS_S = {"detected": 0.5, "all stopped": 1.5, "command ended": 2.0}


def measure(how: str) -> dict[str, float]:
    """Returns the seconds from a worker's death until each of the three moments."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        with ssh_namespaces(top / "net", HOSTS) as hosts:
            lab = lab_of_namespaces(top, hosts)
            lab.manifest(sys.executable, lab.ssh_nodes(SLOTS))
            trial = Trial(lab, how, "attached", how, world=HOSTS * SLOTS)
            trial.begin()
            trial.wait_up()
            trial.strike(lambda: trial.meet("go"))
            trial.watch_stop()
            trial.end_of_launcher()
            ended_s = time.time() - trial.struck_at
            trial.detected("worker_exited")
            lab.no_survivors()
            assert "rank 1 on n1" in trial.last_line, trial.said
            if how == "raise":
                traceback = trial.said.split("failed first:")[1]
                assert traceback.count("Traceback (most recent call last)") == 1, trial.said
    assert trial.detected_s is not None and trial.stopped_s is not None
    return dict(zip(LIMITS_S, (trial.detected_s, trial.stopped_s, ended_s), strict=True))


def main() -> None:
    """Prints the medians and the worst of all rounds beside what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (5)")
    rounds = parser.parse_args().rounds
    for how in ("kill", "raise"):
        measured = [measure(how) for _ in range(rounds)]
        for moment, limit_s in LIMITS_S.items():
            times = [each[moment] for each in measured]
            print(
                f"{how}: {moment} after {statistics.median(times):.3f} s (median of {rounds}), "
                f"{max(times):.3f} s at worst; wanted: under {limit_s} s"
            )


if __name__ == "__main__":
    main()
