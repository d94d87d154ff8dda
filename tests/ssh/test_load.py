"""Many logins and many bytes: what a busy sshd does to them."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import sys
import threading
from pathlib import Path

import pytest

from launcher.transport.ssh import SshTransport
from launcher.transport.ssh_link import WINDOW_BYTES
from tests.support.deadline import wait_until
from tests.support.sshd import find_sshd, running_sshd

pytestmark = pytest.mark.skipif(
    find_sshd() is None and os.environ.get("CI") != "true",
    reason="sshd is missing here (CI has it)",
)
BULK = 24 * 1024 * 1024


def test_logins_beyond_max_startups_all_come_through(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "ssh", settings=["MaxStartups 3:60:8"]) as host:
        transport = SshTransport(host.files, logins_at_once=48)

        def once(number: int) -> bytes:
            connection = transport.open(host.node, ["echo", str(number)], timeout_s=50.0)
            got = connection.receive(100)
            connection.close()
            return got

        with concurrent.futures.ThreadPoolExecutor(48) as pool:
            got = list(pool.map(once, range(48)))
        transport.close()
        assert "drop connection" in host.log.read_text()
    assert got == [f"{number}\n".encode() for number in range(48)]


def test_new_keys_in_the_middle_lose_nothing(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "ssh", settings=["RekeyLimit 1M"]) as host:
        transport = SshTransport(host.files)
        connection = transport.open(host.node, ["cat"], timeout_s=15.0)
        data = os.urandom(BULK)
        sender = threading.Thread(target=connection.send, args=(data,))
        sender.start()
        digest, count = hashlib.sha256(), 0
        while count < BULK:
            piece = connection.receive(256 * 1024)
            assert piece, connection.stderr_tail()
            digest.update(piece)
            count += len(piece)
        sender.join()
        transport.close()
    assert digest.digest() == hashlib.sha256(data).digest()


def test_a_slow_reader_holds_the_far_side_back(tmp_path: Path) -> None:
    """What nobody reads stays there, but for one window."""
    with running_sshd(tmp_path / "ssh") as host:
        transport = SshTransport(host.files)
        code = (
            "import os, sys\n"
            "os.set_blocking(1, False)\n"
            "import select, time\n"
            "sent, quiet = 0, time.monotonic()\n"
            "while time.monotonic() - quiet < 1.0:\n"
            "    if select.select([], [1], [], 0.1)[1]:\n"
            "        sent += os.write(1, bytes(65536)); quiet = time.monotonic()\n"
            "open(sys.argv[1] + '.new', 'w').write(str(sent))\n"
            "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        )
        # Not over stderr: that shares the window, which is full.
        sent = tmp_path / "sent"
        transport.open(host.node, [sys.executable, "-c", code, str(sent)], timeout_s=15.0)
        wait_until(sent.exists, "the far side's standstill", 20.0)
        # One window, and what sshd and the pipe to it hold besides.
        assert int(sent.read_text()) < 2 * WINDOW_BYTES
        transport.close()
