"""The NVIDIA GPUs of this machine, as the kernel shows them; no program is started.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import glob
import os
import re
from typing import Dict, List, Optional, Tuple

_DEVICES = "/dev/nvidia[0-9]*"
_PROC = "/proc/driver/nvidia"


def gpus() -> List[Dict[str, str]]:
    """Returns ``{"model": …}`` for each GPU that workers can see, in the order of their numbers."""
    models = _models()
    numbers = sorted(int(path[len("/dev/nvidia") :]) for path in glob.glob(_DEVICES))
    return [{"model": models.get(number, "")} for number in numbers]


def _models() -> Dict[int, str]:
    texts = [_text(path) for path in glob.glob(_PROC + "/gpus/*/information")]
    return dict(filter(None, map(read_information, texts)))


def read_information(text: str) -> "Optional[Tuple[int, str]]":
    r"""Returns a GPU's number and model from what the driver says of it; older ones say no number.

    >>> read_information("Model: \t\t NVIDIA A100-SXM4-40GB\nDevice Minor: \t 3\n")
    (3, 'NVIDIA A100-SXM4-40GB')
    """
    model = re.search(r"^Model:\s*(\S.*?)\s*$", text, re.MULTILINE)
    minor = re.search(r"^Device Minor:\s*(\d+)", text, re.MULTILINE)
    return (int(minor.group(1)), model.group(1)) if model and minor else None


def driver() -> str:
    """Returns the version of the driver that the kernel has loaded, or ""."""
    return read_version(_text(_PROC + "/version"))


def read_version(text: str) -> str:
    """Returns the driver's version from its own words, "" where they have none.

    >>> read_version("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19")
    '535.104.05'
    """
    found = re.search(r"Module\s+(?:for \w+\s+)?(\d[\d.]*)", text)
    return found.group(1) if found else ""


def problem() -> str:
    """Returns why a GPU that is there cannot be used, or ""."""
    for path in sorted(glob.glob(_DEVICES)):
        if not os.access(path, os.R_OK | os.W_OK):
            return "this user may not open %s" % path
    if glob.glob(_PROC + "/gpus/*") and not glob.glob(_DEVICES):
        return "the driver is loaded, but there is no /dev/nvidia0"
    return ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
