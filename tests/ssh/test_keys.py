"""Keys to log in with: files, the agent, passphrases, certificates, and what is said of each."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import getpass
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.model import SshSpec
from launcher.errors import LoginRefused
from launcher.transport.ssh import SshTransport
from tests.support.asyncssh_server import running_asyncssh
from tests.support.keys import KeyPair, make_key
from tests.support.servers import SshHost
from tests.support.sshd import find_sshd, running_sshd

needs_sshd = pytest.mark.skipif(find_sshd() is None, reason="sshd is missing here (CI has it)")
PHRASE = "correct horse"


class Person:
    """Answers questions and counts them."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    def __call__(self, question: str) -> str | None:
        self.questions.append(question)
        return self.answers.pop(0) if self.answers else None


def configured(host: SshHost, directory: Path, *lines: str) -> SshHost:
    """Returns the server with another client configuration."""
    path = directory / "client_config"
    base = [f"Host {host.name}", f"HostName {host.address}", f"Port {host.port}"]
    base.append(f"UserKnownHostsFile {host.known_hosts}")
    path.write_text("\n".join([*base, *lines]) + "\n")
    path.chmod(0o600)
    return dataclasses.replace(host, config=path)


def log_in(host: SshHost, person: Person | None = None, **spec: str) -> None:
    node = dataclasses.replace(host.node, ssh=SshSpec(host.name, **spec))  # type: ignore[arg-type]
    transport = SshTransport(host.files, prompt=person)
    try:
        connection = transport.open(node, ["echo", "in"], timeout_s=15.0)
        assert connection.receive(10) == b"in\n"
    finally:
        transport.close()


def refusal(host: SshHost, person: Person | None = None, **spec: str) -> LoginRefused:
    with pytest.raises(LoginRefused) as caught:
        log_in(host, person, **spec)
    return caught.value


@pytest.fixture
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@contextlib.contextmanager
def agent_with(directory: Path, *keys: KeyPair) -> Iterator[Path]:
    """Runs an SSH agent that holds the keys."""
    sock = directory / "agent.sock"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            for key in keys:
                subprocess.run(
                    ["ssh-add", "-q", str(key.path)],
                    env={**os.environ, "SSH_AUTH_SOCK": str(sock)},
                    check=True,
                )
            yield sock
        finally:
            process.terminate()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_kind_of_key(tmp_path: Path, no_agent: None, kind: str) -> None:
    if find_sshd() is None:
        pytest.skip("sshd is missing here (CI has it)")
    identity = make_key(tmp_path / kind, kind)
    with running_sshd(tmp_path / "ssh", identity=identity) as host:
        log_in(configured(host, tmp_path), identity=str(identity.path))


def test_an_encrypted_key_is_asked_for_once_for_all_nodes(tmp_path: Path, no_agent: None) -> None:
    if find_sshd() is None:
        pytest.skip("sshd is missing here (CI has it)")
    identity = make_key(tmp_path / "locked", passphrase=PHRASE)
    with running_sshd(tmp_path / "ssh", identity=identity) as host:
        plain = configured(host, tmp_path, f"IdentityFile {identity.path}")
        person = Person("wrong", PHRASE)
        transport = SshTransport(plain.files, prompt=person)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            opened = [
                pool.submit(transport.open, plain.node, ["echo", "in"], timeout_s=20.0)
                for _ in range(8)
            ]
            for one in opened:
                assert one.result().receive(10) == b"in\n"
        transport.close()
    assert person.questions == [f"Passphrase of {identity.path}: "] * 2


def test_an_encrypted_key_with_nobody_to_ask(
    shared_ssh_host: SshHost, tmp_path: Path, no_agent: None
) -> None:
    locked = make_key(tmp_path / "locked", passphrase=PHRASE)
    host = configured(shared_ssh_host, tmp_path, f"IdentityFile {locked.path}")
    error = refusal(host)
    assert f"{locked.path}: is encrypted" in error.message
    assert "ssh-add" in error.message


def test_a_wrong_passphrase(shared_ssh_host: SshHost, tmp_path: Path, no_agent: None) -> None:
    locked = make_key(tmp_path / "locked", passphrase=PHRASE)
    host = configured(shared_ssh_host, tmp_path, f"IdentityFile {locked.path}")
    assert "wrong 3 times" in refusal(host, Person("a", "b", "c", "d")).message


def test_batch_mode_asks_nobody(shared_ssh_host: SshHost, tmp_path: Path, no_agent: None) -> None:
    locked = make_key(tmp_path / "locked", passphrase=PHRASE)
    host = configured(shared_ssh_host, tmp_path, f"IdentityFile {locked.path}", "BatchMode yes")
    person = Person(PHRASE)
    refusal(host, person)
    assert person.questions == []


def test_what_is_wrong_with_each_file_is_said(
    shared_ssh_host: SshHost, tmp_path: Path, no_agent: None
) -> None:
    too_open = make_key(tmp_path / "open")
    too_open.path.chmod(0o644)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "text").chmod(0o600)
    torn = make_key(tmp_path / "torn")
    torn.path.write_text(torn.path.read_text()[:120])
    names = ["open", "text", "torn", "missing", "open.pub"]
    lines = [f"IdentityFile {tmp_path / name}" for name in names]
    error = refusal(configured(shared_ssh_host, tmp_path, *lines))
    assert f"{too_open.path}: others may read it (mode 0644): chmod 600" in error.message
    assert f"{tmp_path / 'text'}: is no private key" in error.message
    assert f"{torn.path}: " in error.message
    assert f"{tmp_path / 'missing'}: No such file" in error.message
    assert "open.pub: is a public key" in error.message
    assert "ssh-copy-id" in error.hint


def test_no_key_at_all(shared_ssh_host: SshHost, tmp_path: Path, no_agent: None) -> None:
    host = configured(shared_ssh_host, tmp_path, "IdentityFile none")
    error = refusal(host)
    assert "no key to try" in error.message
    assert "ssh-keygen" in error.hint


def test_the_agent_has_the_key(shared_ssh_host: SshHost, tmp_path: Path) -> None:
    with agent_with(tmp_path, make_key(tmp_path / "other"), shared_ssh_host.identity) as sock:
        log_in(configured(shared_ssh_host, tmp_path, f"IdentityAgent {sock}"))


def test_the_agent_of_the_environment(
    shared_ssh_host: SshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent_with(tmp_path, shared_ssh_host.identity) as sock:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        log_in(configured(shared_ssh_host, tmp_path))
        none = configured(shared_ssh_host, tmp_path, "IdentityAgent none", "IdentityFile none")
        refusal(none)


def test_a_locked_file_whose_key_the_agent_holds_is_not_asked_for(
    tmp_path: Path,
) -> None:
    if find_sshd() is None:
        pytest.skip("sshd is missing here (CI has it)")
    open_key = make_key(tmp_path / "key")
    with (
        running_sshd(tmp_path / "ssh", identity=open_key) as host,
        agent_with(tmp_path, open_key) as sock,
    ):
        subprocess.run(
            ["ssh-keygen", "-q", "-p", "-N", PHRASE, "-f", str(open_key.path)], check=True
        )
        lines = (f"IdentityAgent {sock}", "IdentitiesOnly yes")
        person = Person(PHRASE)
        log_in(configured(host, tmp_path, *lines, f"IdentityFile {open_key.path}"), person)
        log_in(configured(host, tmp_path, *lines, f"IdentityFile {open_key.path}.pub"), person)
        assert person.questions == []


def test_identities_only_leaves_the_agents_other_keys_out(
    shared_ssh_host: SshHost, tmp_path: Path
) -> None:
    with agent_with(tmp_path, shared_ssh_host.identity) as sock:
        other = make_key(tmp_path / "named")
        lines = (f"IdentityAgent {sock}", f"IdentityFile {other.path}")
        log_in(configured(shared_ssh_host, tmp_path, *lines))
        error = refusal(configured(shared_ssh_host, tmp_path, *lines, "IdentitiesOnly yes"))
        assert "agent key" not in error.message


def test_an_agent_that_is_gone_is_said(shared_ssh_host: SshHost, tmp_path: Path) -> None:
    lines = (f"IdentityAgent {tmp_path}/gone.sock", "IdentityFile none")
    error = refusal(configured(shared_ssh_host, tmp_path, *lines))
    assert f"SSH agent at {tmp_path}/gone.sock" in error.message


@needs_sshd
@pytest.mark.parametrize("beside", [True, False])
def test_a_certificate(tmp_path: Path, no_agent: None, beside: bool) -> None:
    authority, identity = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
    sign = ["ssh-keygen", "-q", "-s", str(authority.path), "-I", "me", "-n", getpass.getuser()]
    subprocess.run([*sign, f"{identity.path}.pub"], check=True)
    cert = Path(f"{identity.path}-cert.pub")
    lines = [f"IdentityFile {identity.path}"]
    if not beside:
        cert = cert.rename(tmp_path / "elsewhere.pub")
        lines.append(f"CertificateFile {cert}")
    settings = [f"TrustedUserCAKeys {authority.path}.pub"]
    with running_sshd(tmp_path / "ssh", settings=settings) as host:
        log_in(configured(host, tmp_path, *lines))
        cert.unlink()
        refusal(configured(host, tmp_path, *lines))


def test_the_default_key_files(
    shared_ssh_host: SshHost, tmp_path: Path, no_agent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    source = shared_ssh_host.identity.path
    (tmp_path / ".ssh" / "id_ed25519").touch(mode=0o600)
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(source.read_bytes())
    log_in(configured(shared_ssh_host, tmp_path))


@pytest.fixture(scope="module")
def password_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    with running_asyncssh(tmp_path_factory.mktemp("password"), password=PHRASE) as host:
        yield host


def test_a_password_is_asked_for_once_for_all_nodes(
    password_host: SshHost, tmp_path: Path, no_agent: None
) -> None:
    host = configured(password_host, tmp_path, "IdentityFile none", "User train")
    person = Person(PHRASE)
    transport = SshTransport(host.files, prompt=person)
    for _ in range(3):
        connection = transport.open(host.node, ["echo", "in"], timeout_s=15.0)
        assert connection.receive(10) == b"in\n"
    transport.close()
    assert len(person.questions) == 1
    assert "Password of train" in person.questions[0]


def test_a_wrong_password(password_host: SshHost, tmp_path: Path, no_agent: None) -> None:
    host = configured(password_host, tmp_path, "IdentityFile none")
    error = refusal(host, Person("wrong"))
    assert "password: not accepted" in error.message
    assert "wrong" not in error.message


def test_nobody_to_ask_for_a_password(
    password_host: SshHost, tmp_path: Path, no_agent: None
) -> None:
    host = configured(password_host, tmp_path, "IdentityFile none")
    assert "no key to try" in refusal(host).message
    person = Person(PHRASE)
    refusal(configured(password_host, tmp_path, "IdentityFile none", "BatchMode yes"), person)
    assert person.questions == []
