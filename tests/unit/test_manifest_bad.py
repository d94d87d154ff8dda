"""Every bad manifest beside this file, each against the exact lines that it must give."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from launcher.errors import EXIT_MANIFEST, ManifestError
from launcher.store.manifest_file import read_manifest

HERE = Path(__file__).parent / "manifests"
NAMES = sorted(path.stem for path in HERE.glob("*.yaml"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_exactly_these_lines(name: str, folder: Path) -> None:
    shutil.copy(HERE / f"{name}.yaml", folder / "cluster.yaml")
    expected = (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines()

    with pytest.raises(ManifestError) as caught:
        read_manifest(Path("cluster.yaml"))

    assert caught.value.problems == expected
    assert caught.value.exit_code == EXIT_MANIFEST


def test_there_are_at_least_fifty_and_none_lacks_its_lines() -> None:
    assert len(NAMES) >= 50
    assert sorted(path.stem for path in HERE.glob("*.txt")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_repeated(name: str) -> None:
    assert "hunter2" not in (HERE / f"{name}.txt").read_text(encoding="utf-8")
