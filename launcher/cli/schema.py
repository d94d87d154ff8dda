"""`flowlaunch schema`: the JSON Schema of cluster.yaml."""

from __future__ import annotations

import click


@click.command("schema")
def command() -> None:
    """Prints the JSON Schema of cluster.yaml, for editors.

    An editor that speaks YAML then completes keys and marks mistakes as they are typed.

    \b
    Example:
      flowlaunch schema > cluster.schema.json
      # then, as the first line of cluster.yaml:
      # yaml-language-server: $schema=cluster.schema.json
    """  # noqa: D301 - click wants the backspace itself
    from launcher.core.manifest_schema import json_schema

    click.echo(json_schema(), nl=False)
