"""The first code on a node: takes in the agent, unless it is there, and becomes it.

Run as ``python3 -ISc CODE DIGEST SIZE ROOT ARGS`` with this file's text as CODE. It says one
line on standard output behind `MARK`, which also divides what start-up files of the login shell
may have printed from what follows: ``have``, or ``need``, upon which SIZE bytes of a zip file are
expected, or ``error`` and a reason.

The zip is unpacked once per digest instead of being imported from: so its compiled code is
cached, and the next start takes half the time.
"""

import gc
import os
import sys

MARK = b"\nflowlaunch-agent "
NEWER_PYTHONS = ["python3.%d" % minor for minor in range(14, 6, -1)]


def _say(word: str) -> None:
    os.write(1, MARK + word.encode("utf-8", "replace") + b"\n")


def _become_newer() -> None:
    import subprocess

    with open("/proc/self/cmdline", "rb") as file:
        arguments = [os.fsdecode(word) for word in file.read().split(b"\0")[1:-1]]
    for name in NEWER_PYTHONS:
        try:
            # A shim of pyenv is there for versions that are not, and says so only when it is run.
            null = subprocess.DEVNULL
            if subprocess.call([name, "-ISc", ""], stdin=null, stdout=null, stderr=null) == 0:
                os.execvp(name, [name] + arguments)
        except OSError:
            continue
    _say("error python %d.%d is too old, 3.7 or newer is needed" % sys.version_info[:2])
    sys.exit(0)


def _read(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return bytes(data)


def _install(home: str, digest: str, size: int) -> None:
    import hashlib
    import io
    import shutil
    import tempfile
    import zipfile

    data = _read(size)
    if hashlib.sha256(data).hexdigest() != digest:
        raise OSError("the agent arrived damaged")
    parent = os.path.dirname(home)
    fresh = tempfile.mkdtemp(prefix=".new-", dir=parent)
    try:
        zipfile.ZipFile(io.BytesIO(data)).extractall(fresh)
        try:
            os.rename(fresh, home)
        except OSError:
            if not os.path.isdir(home):
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _main() -> None:
    if sys.version_info < (3, 7):
        _become_newer()
    digest, size, root, arguments = sys.argv[1:5]
    root = os.path.abspath(os.path.expanduser(root))
    home = os.path.join(root, "agent", digest)
    try:
        if os.path.isdir(home):
            _say("have")
        else:
            os.makedirs(os.path.dirname(home), mode=0o700, exist_ok=True)
            _say("need")
            _install(home, digest, int(size))
    except OSError as error:
        _say("error %s" % error)
        sys.exit(0)
    sys.path.insert(0, home)
    # Nothing of what is imported is garbage: to look for some takes a tenth of a node's start.
    # Whoever has imported what it needs turns it on again.
    gc.disable()
    from launcher.agent.__main__ import main

    main(root, arguments)


if __name__ == "__main__":
    _main()
