"""Questions that only a person can answer."""

from __future__ import annotations

import getpass
import sys


def ask_secret(question: str) -> str | None:
    """Asks for a passphrase or password on the terminal; None where there is no terminal."""
    if not sys.stdin.isatty():
        return None
    try:
        return getpass.getpass(f"{question}: ")
    except (EOFError, KeyboardInterrupt):
        return None
