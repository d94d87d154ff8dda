"""How a job's command line ends: one clear line and an exit code, never a traceback of ours."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from jobs.heap import keep_freed_memory
from launcher.worker import CheckpointError, context

EXIT_USAGE = 64
EXIT_DATA = 66
EXIT_STATE = 70


class JobError(Exception):
    """What a job reports in one line.

    Attributes:
        exit_code: what the process ends with.
    """

    exit_code = EXIT_STATE


class UsageError(JobError):
    """The command line asks for something that there is not."""

    exit_code = EXIT_USAGE


class DataError(JobError):
    """A file or folder is missing, or is not what it should be."""

    exit_code = EXIT_DATA


class Parser(argparse.ArgumentParser):
    """An argparse parser with flowlaunch's exit code for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage and what is wrong, and ends the process with 64."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> NoReturn:
    """Ends the process with `main`'s result, or with its error as one line on stderr."""
    if context().world_size > 1:
        keep_freed_memory()
    try:
        code = main(sys.argv[1:] if argv is None else argv)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_DATA
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def positive(text: str) -> int:
    """Returns a whole number above 0, for argparse.

    >>> positive("12")
    12
    """
    return _whole_number(text, 1)


def natural(text: str) -> int:
    """Returns a whole number, 0 or above, for argparse."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    if not text.lstrip("-").isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text}")
    return int(text)


def fraction(text: str) -> float:
    """Returns a number from 0 up to, not including, 1, for argparse."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number in [0, 1), got {text}")
    return value


def rate(text: str) -> float:
    """Returns a finite number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value
