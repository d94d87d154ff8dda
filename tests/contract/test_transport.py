"""One suite over every transport: what `launcher.transport.base` promises holds for each."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.core.model import NodeSpec, TransportKind
from launcher.errors import NodeLost
from launcher.transport.base import Connection, Transport
from launcher.transport.local import LocalTransport
from tests.support.asyncssh_server import running_asyncssh
from tests.support.deadline import wait_until
from tests.support.processes import wait_gone
from tests.support.servers import SshHost
from tests.support.sshd import find_sshd, running_sshd

LIMIT_S = 20.0
BULK = 8 * 1024 * 1024
LOCAL = NodeSpec("here", "127.0.0.1", TransportKind.LOCAL)
NASTY = (
    "two words",
    "",
    "single'quote",
    'double"quote',
    "line\nbreak",
    "$HOME `id` $(id)",
    "* ? [a-z] ~ {a,b}",
    "back\\slash",
    "ünïcødé 机器",
    "-n --",
    ";&|<>!#",
)


@dataclass(frozen=True)
class Way:
    """A transport and the node to try it with."""

    transport: Transport
    node: NodeSpec

    def open(self, *argv: str) -> Connection:
        return self.transport.open(self.node, argv, timeout_s=LIMIT_S)

    def python(self, code: str, *args: str) -> Connection:
        return self.open(sys.executable, "-c", code, *args)


@pytest.fixture(scope="session", params=["local", "sshd", "asyncssh"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SshHost | None]:
    if request.param == "local":
        yield None
        return
    if request.param == "sshd" and find_sshd() is None:
        pytest.skip("sshd is missing here (CI has it); asyncssh's server stands in")
    running = running_sshd if request.param == "sshd" else running_asyncssh
    with running(tmp_path_factory.mktemp(f"contract-{request.param}")) as host:
        yield host


@pytest.fixture
def way(server: SshHost | None) -> Iterator[Way]:
    host = server
    transport: Transport = LocalTransport() if host is None else host.transport()
    yield Way(transport, LOCAL if host is None else host.node)
    transport.close()


def read_all(connection: Connection) -> bytes:
    pieces = []
    while piece := connection.receive(256 * 1024):
        pieces.append(piece)
    return b"".join(pieces)


def read_line(connection: Connection) -> str:
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.receive(1)
        assert piece, f"ended after {line!r}: {connection.stderr_tail()}"
        line += piece
    return line.decode().strip()


def test_bytes_come_back_as_they_went(way: Way) -> None:
    data = os.urandom(BULK)
    connection = way.open("cat")
    sender = threading.Thread(target=connection.send, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < BULK:
        piece = connection.receive(256 * 1024)
        assert 0 < len(piece) <= 256 * 1024
        got += piece
    sender.join()
    assert got == data
    connection.close()


def test_receive_gives_no_more_than_asked(way: Way) -> None:
    connection = way.open("printf", "abcdef")
    assert connection.receive(2) == b"ab"
    assert read_all(connection) == b"cdef"
    assert connection.receive(10) == b""


@pytest.mark.parametrize("words", [NASTY, *[(word,) for word in NASTY]], ids=repr)
def test_words_arrive_as_they_are(way: Way, words: Sequence[str]) -> None:
    code = "import os, sys; print([os.fsencode(word) for word in sys.argv[1:]])"
    connection = way.python(code, *words)
    assert read_all(connection).decode().strip() == repr([os.fsencode(word) for word in words])


def test_words_need_not_be_utf8(way: Way, server: SshHost | None) -> None:
    if server is not None and server.log.name == "asyncssh.log":
        pytest.skip("asyncssh's server itself takes commands in UTF-8 only")
    word = b"\xff\xfe \x80".decode("utf-8", "surrogateescape")
    connection = way.python("import os, sys; print(os.fsencode(sys.argv[1]))", word)
    assert read_all(connection).decode().strip() == repr(os.fsencode(word))


def test_output_ends_and_the_status_is_known(way: Way) -> None:
    connection = way.open("sh", "-c", "echo out; exit 7")
    assert read_all(connection) == b"out\n"
    assert connection.exit_status(LIMIT_S) == 7


def test_status_is_unknown_while_it_runs(way: Way) -> None:
    connection = way.open("cat")
    assert connection.exit_status(0.05) is None


def test_a_missing_program_is_127_and_says_so(way: Way) -> None:
    connection = way.open("no-such-program-anywhere", "x")
    assert read_all(connection) == b""
    assert connection.exit_status(LIMIT_S) == 127
    assert "no-such-program-anywhere" in connection.stderr_tail()


def test_the_end_of_stderr_is_kept(way: Way) -> None:
    code = "import sys; sys.stderr.write('x' * 300_000 + 'the last words'); print('done')"
    connection = way.python(code)
    assert read_all(connection) == b"done\n"
    tail = wait_until(
        lambda: connection.stderr_tail().endswith("the last words") and connection.stderr_tail(),
        "the end of stderr",
    )
    assert len(tail) <= 64 * 1024


def test_stderr_does_not_hold_up_stdout(way: Way) -> None:
    code = "import sys\nfor _ in range(100): sys.stderr.write('e' * 10_000); print('o' * 10_000)"
    connection = way.python(code)
    assert len(read_all(connection)) == 100 * 10_001


def test_close_wakes_a_receiver(way: Way) -> None:
    connection = way.open("sleep", "600")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(connection.receive, 10)
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(0.1)
        connection.close()
        with pytest.raises(NodeLost, match="closed here"):
            waiting.result(LIMIT_S)


def test_close_wakes_a_sender(way: Way) -> None:
    connection = way.open("sleep", "600")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # More than any window or pipe on the way holds.
        waiting = pool.submit(connection.send, bytes(64 * 1024 * 1024))
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(0.3)
        connection.close()
        with pytest.raises(NodeLost):
            waiting.result(LIMIT_S)


def test_after_close_nothing_works_and_close_may_be_repeated(way: Way) -> None:
    connection = way.open("cat")
    connection.close()
    connection.close()
    with pytest.raises(NodeLost):
        connection.receive(1)
    with pytest.raises(NodeLost):
        connection.send(b"x")


def test_a_killed_command_ends_the_stream(way: Way) -> None:
    connection = way.open("sh", "-c", "echo $$; exec sleep 600")
    os.kill(int(read_line(connection)), signal.SIGKILL)
    try:
        assert connection.receive(10) == b""
    except NodeLost:
        return


def test_the_stdin_of_a_closed_connection_ends(way: Way) -> None:
    connection = way.open("sh", "-c", "echo $$; exec cat > /dev/null")
    pid = int(read_line(connection))
    connection.close()
    wait_gone(pid)


def test_what_runs_detached_survives_the_close(way: Way, tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "if os.fork(): sys.exit()\n"
        "os.setsid()\n"
        "null = os.open('/dev/null', os.O_RDWR)\n"
        "for fd in (0, 1, 2): os.dup2(null, fd)\n"
        "open(sys.argv[1] + '/pid', 'w').write(str(os.getpid()))\n"
        "os.rename(sys.argv[1] + '/pid', sys.argv[1] + '/ready')\n"
        "for _ in range(6000):\n"
        "    if os.path.exists(sys.argv[1] + '/stop'): break\n"
        "    time.sleep(0.01)\n"
    )
    connection = way.python(code, str(tmp_path))
    assert read_all(connection) == b""
    connection.close()
    wait_until((tmp_path / "ready").exists, "the detached process")
    pid = int((tmp_path / "ready").read_text())
    os.kill(pid, 0)
    (tmp_path / "stop").touch()
    wait_gone(pid)


def test_many_connections_at_once(way: Way) -> None:
    def once(number: int) -> bytes:
        connection = way.open("echo", str(number))
        try:
            return read_all(connection)
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        got = list(pool.map(once, range(24)))
    assert got == [f"{number}\n".encode() for number in range(24)]


def test_closing_the_transport_closes_its_connections(way: Way) -> None:
    connections = [way.open("sleep", "600") for _ in range(3)]
    way.transport.close()
    for connection in connections:
        with pytest.raises(NodeLost):
            connection.receive(1)


def test_the_node_is_named(way: Way) -> None:
    assert way.open("true").node == way.node.name
