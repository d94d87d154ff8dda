"""The third job of docs/jobs.md is a page, and it trains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.jobs.workers import ROOT, run_well

_PAGE = (ROOT / "docs" / "jobs.md").read_text()
_CODE = re.findall(r"```python\n(# mlp\.py\n.*?)```", _PAGE, re.DOTALL)


@pytest.mark.oneflow
def test_the_third_job_of_the_docs_trains_on_two_workers(tmp_path: Path) -> None:
    (code,) = _CODE
    assert len(code.splitlines()) <= 60
    (tmp_path / "mlp.py").write_text(code)
    out = run_well(tmp_path, "mlp.py", workers=2)
    accuracy = float(re.findall(r"test accuracy ([\d.]+)%", out)[-1])
    assert accuracy > 90
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000400"]
