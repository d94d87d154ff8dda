"""`flowlaunch report`: one page, looked at in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.recorded import BEGAN, points, record_run

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J\"'&"
BROWSER = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--allow-file-access-from-files",
)  # fmt: skip
# A frame as wide as a telephone, for a browser whose windows cannot be so narrow.
FRAME = """<!doctype html><iframe id=f src="{page}" style="width:360px;height:740px"></iframe>
<pre id=out></pre><script>
addEventListener("load", () => {{
  const inside = document.getElementById("f").contentDocument, root = inside.documentElement;
  const plot = inside.querySelector(".plot[data-x0]");
  if (plot) plot.dispatchEvent(new PointerEvent("pointermove", {{clientX: 200, clientY: 20}}));
  document.getElementById("out").textContent = JSON.stringify({{
    width: root.clientWidth, content: root.scrollWidth,
    sections: inside.querySelectorAll("h2").length,
    tip: plot ? plot.querySelector(".tip").textContent : "", scripts: inside.scripts.length,
    images: inside.images.length,
  }});
}});</script>"""


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "apt-get install chromium"
    return found


def look(page: Path, tmp_path: Path, *more: str) -> tuple[dict[str, Any], str]:
    """Opens a page; returns what it comes to on a telephone, and what the console said."""
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(page=page.as_uri()))
    home = tmp_path / "browser"
    command = [browser(), *BROWSER, *more, f"--user-data-dir={home}", "--dump-dom"]
    done = subprocess.run(
        [*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    shutil.rmtree(home, ignore_errors=True)
    (seen,) = re.findall(r"<pre id=\"out\">(.*?)</pre>", done.stdout, re.DOTALL)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(seen.replace("&amp;", "&")), "\n".join(said)


def events() -> Iterator[dict[str, Any]]:
    yield {"time": BEGAN, "event": "node_connected", "node": "n1"}
    yield {"time": BEGAN + 5, "event": "run_phase_changed", "phase": "running"}
    for step in (100, 200):
        yield {"time": BEGAN + step, "event": "checkpoint_stored", "node": "n1", "step": step,
               "bytes": 2_400_000, "linked_bytes": 0}  # fmt: skip
    yield {"time": BEGAN + 250, "event": "worker_exited", "node": "n2", "rank": 1,
           "attempt": 0, "exit_code": 3, "signal": 0, "clock": 0.0}  # fmt: skip
    yield {"time": BEGAN + 300, "event": "run_ended", "exit_code": 3}


def system() -> Iterator[dict[str, Any]]:
    for second in range(0, 300, 2):
        for node in ("n1", "n2"):
            yield {"time": BEGAN + second, "node": node, "cpu": 0.5, "memory_bytes": 100,
                   "memory_used_bytes": 40, "disk_free_bytes": 10**12}  # fmt: skip


def test_the_page_of_a_run(lab: Lab, tmp_path: Path) -> None:
    reports = list(points(600, ranks=2))
    reports[400]["loss"] = "inf"
    top = record_run(
        lab.top / "runs", reports, events=events(), system=system(), exit_code=3,
        first_error={"rank": 1, "node": "n2", "how": "exit code 3", "lines": ["no room"]},
        restarts=[{"attempt": 0, "cause": "rank 1 on n2 failed", "time": BEGAN + 90}],
    )  # fmt: skip
    (top / "cluster.yaml").write_text("name: lab  # the manifest\n")
    done = lab.flowlaunch("report", "last")
    assert done.code == 0
    assert done.out == "runs/lenet-20260102-030405-a1b2/report.html\n"
    page = top / "report.html"
    text = page.read_text()
    for words in (
        "failed (3)", "no room", "inf first at step 201", "median 0.5 s a step", "2.4 MB",
        "rank 1 on n2 failed", "# the manifest",
    ):  # fmt: skip
        assert words in text, words
    assert "://" not in text, "nothing is asked of any network"
    for theme in ((), ("--blink-settings=preferredColorScheme=0",)):
        seen, said = look(page, tmp_path, *theme)
        assert said == ""
        assert seen["content"] <= seen["width"] <= 360, "no page wider than the telephone"
        assert seen["sections"] == 8
        assert re.match(r"step \d+  rank 0  [\d.]+", seen["tip"])
    assert len(text) < 300_000


def test_nothing_that_a_node_or_a_job_says_becomes_code(lab: Lab, tmp_path: Path) -> None:
    reports = [{"time": BEGAN + i, "rank": 0, "step": i, ATTACK: 1.0 * i} for i in range(5)]
    top = record_run(
        lab.top / "runs", reports,
        events=[{"time": BEGAN, "event": ATTACK, "node": ATTACK, "reason": ATTACK}],
        system=[{"time": BEGAN, "node": ATTACK, "cpu": 0.5}],
        nodes={ATTACK: {"state": ATTACK, "problem": ATTACK}},
        workers={0: ATTACK}, job=ATTACK, name=ATTACK, cluster=ATTACK, missing=[ATTACK],
        first_error={"rank": ATTACK, "node": ATTACK, "how": ATTACK, "lines": [ATTACK]},
        restarts=[{"attempt": ATTACK, "cause": ATTACK, "time": ATTACK}],
    )  # fmt: skip
    (top / "plan.json").write_text(json.dumps({ATTACK: ATTACK}))
    (top / "cluster.yaml").write_text(ATTACK)
    assert lab.flowlaunch("report", "last").code == 0
    seen, said = look(top / "report.html", tmp_path)
    assert (seen["scripts"], seen["images"], said) == (1, 0, "")
    assert "\x1b" not in (top / "report.html").read_text()


def test_a_run_of_which_hardly_anything_is_known(lab: Lab, tmp_path: Path) -> None:
    top = record_run(lab.top / "runs", state="running", exit_code=None)
    for name in ("metrics.jsonl", "system.jsonl"):
        (top / name).unlink()
    (top / "events.jsonl").write_bytes(b'{"torn')
    done = lab.flowlaunch("report", "last", "-o", "page.html")
    assert (done.code, done.out) == (0, "page.html\n")
    assert look(lab.top / "page.html", tmp_path)[1] == ""


def test_a_place_that_cannot_be_written(lab: Lab) -> None:
    record_run(lab.top / "runs")
    done = lab.flowlaunch("report", "last", "-o", "missing/page.html")
    assert done.code == 74
    assert "missing" in done.err and "Traceback" not in done.err


def _large(lab: Lab, steps: int, ranks: int) -> Path:
    def reports() -> Iterator[dict[str, Any]]:
        for point in points(steps, ranks):
            spike = point["step"] == steps // 3 and point["rank"] == ranks // 2
            yield {**point, "loss": 7777.5 if spike else 1.0 / point["step"]}

    workers = {rank: f"gpu{rank // 8:03d}" for rank in range(ranks)}
    top = record_run(lab.top / "runs", reports(), workers=workers)
    assert lab.flowlaunch("report", "last", limit_s=600).code == 0
    return top / "report.html"


def test_many_points_hide_no_spike(lab: Lab) -> None:
    page = _large(lab, 300, 100)
    assert page.stat().st_size < 2_000_000
    assert "highest 7778 at 100" in page.read_text()


@pytest.mark.soak
def test_a_million_points(lab: Lab, tmp_path: Path) -> None:
    page = _large(lab, 1000, 1000)
    assert page.stat().st_size < 2_000_000
    assert "highest 7778 at 333" in page.read_text()
    assert look(page, tmp_path)[1] == ""
