"""The JSON Schema that editors read."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from launcher.cli.schema import command
from launcher.core.manifest_schema import json_schema

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "launcher" / "core" / "cluster.schema.json"


def test_the_shipped_schema_is_what_is_validated() -> None:
    """`flowlaunch schema > launcher/core/cluster.schema.json` brings it up to date."""
    assert SHIPPED.read_text(encoding="utf-8") == json_schema()


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 0
    assert json.loads(done.output) == json.loads(json_schema())


def test_the_shipped_manifest_names_it() -> None:
    first = (ROOT / "cluster.yaml").read_text(encoding="utf-8").splitlines()[0]
    path = first.removeprefix("# yaml-language-server: $schema=")
    assert (ROOT / path).samefile(SHIPPED)


def test_every_key_is_explained_and_no_other_is_allowed() -> None:
    schema = json.loads(json_schema())
    for form in [schema, *schema["$defs"].values()]:
        assert form["additionalProperties"] is False
        undescribed = [
            key for key, value in form["properties"].items() if "description" not in value
        ]
        assert undescribed == []


def test_an_editor_never_offers_null() -> None:
    assert '"null"' not in json_schema()
