"""What reporting costs: a call of `report`, and a launcher whose workers report without a pause.

First, a call in a loop, at a pace at which every report is kept and as fast as it goes. Then a real
run on this machine: 8 workers report 12,500 times a second each, 100,000 in all, for some seconds,
and end in different ways, by SIGKILL too. The launcher's share of a core is taken from its process
times over the seconds in which they report, the last values from metrics.jsonl.

    python benchmarks/metrics.py [--seconds 10] [--rate 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launcher.worker import Context  # noqa: E402
from launcher.worker.reporter import Reporter  # noqa: E402

WORKERS = 8
# How the workers end, in turn.
ENDS = ("return", "os._exit(0)", "os.kill(os.getpid(), 9)")
JOB = """
import os, time
from launcher import worker
w = worker.context()
rate, seconds = float(os.environ["RATE"]), float(os.environ["SECONDS"])
while time.time() < float(os.environ["BEGIN"]):
    time.sleep(0.01)
begin, step = time.perf_counter(), 0
# In bursts of a hundredth of a second, as far as the clock has gone: a late worker catches up.
while step < rate * seconds:
    due = min(rate * (time.perf_counter() - begin), rate * seconds)
    while step < due:
        step += 1
        w.report(step=step, total=int(rate * seconds), loss=1.0 / step, images_per_s=640.0)
    time.sleep(0.01)
with open(os.environ["TOLD"] + str(w.rank), "w") as file:
    file.write("%d %r %f" % (step, 1.0 / step, time.perf_counter() - begin))
# The others must not be stopped for it before they have said their last.
while len(os.listdir(os.path.dirname(os.environ["TOLD"]))) < w.world_size:
    time.sleep(0.01)
def main():
    END
main()
"""


def cost_of_a_call(top: Path) -> None:
    """Prints how long a call takes, in microseconds of this thread, medians of batches."""
    values = {"loss": 0.25, "images_per_s": 640.5, "epoch": 3}
    for name in ("every report kept", "as fast as it goes"):
        path = str(top / name.replace(" ", "-"))
        context = Context({"FLOWLAUNCH_REPORT": path, "WORLD_SIZE": "1"})
        batches = []
        for _ in range(200):
            if name == "every report kept":
                # One that may write all that it saved up.
                context._reporter = Reporter(path, 1)
            begin = time.thread_time()
            for step in range(100):
                context.report(step=step, total=100, **values)
            batches.append((time.thread_time() - begin) / 100 * 1e6)
        print(f"report(), {name:<19} {statistics.median(batches):5.1f} us a call (20 are allowed)")
        assert context._reporter is not None
        context._reporter.close()


def launcher_share(pid: int) -> float:
    """Returns the processor seconds that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def flood(top: Path, rate: float, seconds: float) -> None:
    """Runs the workers and prints what came of it."""
    told = top / "told"
    told.mkdir()
    job = "".join(f"{'if' if not n else 'elif'} w.rank % {len(ENDS)} == {n}: {end}\n    "
                  for n, end in enumerate(ENDS))  # fmt: skip
    (top / "job.py").write_text(JOB.replace("END\n", job.rstrip() + "\n"))
    (top / "cluster.yaml").write_text(
        "nodes:\n"
        f"  - {{name: this, transport: local, slots: {WORKERS}, python: {sys.executable}}}\n"
    )
    begin = time.time() + 8
    env = {"RATE": rate / WORKERS, "SECONDS": seconds, "BEGIN": begin, "TOLD": f"{told}/rank-"}
    pairs = [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
    command = [sys.executable, "-m", "launcher.cli.main", "run", "job.py", *pairs]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (top / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=top, env=environment, stdout=said, stderr=said)
        time.sleep(max(0.0, begin - time.time()))
        before, since = launcher_share(process.pid), time.time()
        while len(list(told.iterdir())) < WORKERS and process.poll() is None:
            time.sleep(0.02)
        share = (launcher_share(process.pid) - before) / (time.time() - since)
        process.wait(120)
    compare(top, told, share)


def compare(top: Path, told: Path, share: float) -> None:
    """Prints what every worker said last, and what is here of it."""
    (run,) = [path for path in (top / "runs").iterdir() if path.is_dir()]
    last: dict[int, dict[str, float]] = {}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    for line in lines:
        fields = json.loads(line)
        last[fields["rank"]] = fields
    calls, lost, slowest_s = 0, [], 0.0
    for path in told.iterdir():
        step, loss, took_s = path.read_text().split()
        rank = int(path.name[5:])
        calls, slowest_s = calls + int(step), max(slowest_s, float(took_s))
        if (last[rank]["step"], last[rank]["loss"]) != (int(step), float(loss)):
            lost.append(rank)
    print(f"{calls:,} calls of {WORKERS} workers: {calls / slowest_s:,.0f} a second")
    print(f"{len(lines):,} lines in metrics.jsonl; last values lost: {lost or 'none'}")
    print(f"the launcher used {100 * share:.1f} % of a core (30 are allowed)")


def main() -> None:
    """Prints every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long they report (10)")
    parser.add_argument("--rate", type=float, default=1e5, help="calls a second, of all (100000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        cost_of_a_call(Path(directory))
        flood(Path(directory), options.rate, options.seconds)


if __name__ == "__main__":
    main()
