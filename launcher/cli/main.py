"""The command `flowlaunch`: commands are imported when they are called, not before."""

from __future__ import annotations

import importlib
import io
import sys

import click

from launcher import __version__
from launcher.errors import EXIT_INTERRUPTED, EXIT_USAGE, FlowlaunchError

# Name, module and what the list of commands says of it: --help imports none of them.
COMMANDS = {
    "run": ("launcher.cli.run", "Launch a job on the cluster and follow it to its end."),
    "plan": ("launcher.cli.plan", "Print what run would do, and do nothing."),
    "ps": ("launcher.cli.ps", "List the runs, newest first."),
    "status": ("launcher.cli.status", "Show one run: every worker, restarts, the first error."),
    "attach": ("launcher.cli.attach", "Follow a run that goes on without a launcher."),
    "stop": ("launcher.cli.stop", "End a run on every node, from anywhere."),
    "reap": ("launcher.cli.reap", "Find and end what runs left on the nodes."),
    "check": ("launcher.cli.check", "Try every node the way a run will use it."),
    "logs": ("launcher.cli.logs", "Read or follow what the workers said."),
    "metrics": (
        "launcher.cli.metrics",
        "Show what the job reported, as table, CSV or plot.",
    ),
    "report": ("launcher.cli.report", "Write one HTML page of a run."),
    "provision": ("launcher.cli.provision", "Install the OneFlow runtime on nodes that lack it."),
    "checkpoints": ("launcher.cli.checkpoints", "List, bring, prove and drop checkpoints."),
    "init": ("launcher.cli.init", "Write a commented cluster.yaml for hosts that you name."),
    "schema": ("launcher.cli.schema", "Print the JSON Schema of cluster.yaml."),
}


class LazyGroup(click.Group):
    """Commands by name, each from a module of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: flowlaunch run jobs/lenet.py --cluster cluster.yaml",
)
@click.version_option(__version__, prog_name="flowlaunch")
def flowlaunch() -> None:
    """Run one OneFlow program on every machine you name.

    One command reads cluster.yaml, starts identical workers on every node over SSH, shows one
    stream of logs and metrics, and brings every checkpoint home.
    """


def show_any_text() -> None:
    """Lets a terminal of another alphabet show a job's words in its own way instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """The entry point: every failure becomes a message and an exit code."""
    show_any_text()
    try:
        code = flowlaunch.main(standalone_mode=False)
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.exceptions.Abort:
        code = EXIT_INTERRUPTED
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE
    except FlowlaunchError as error:
        from launcher.cli import render

        render.error(error)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
