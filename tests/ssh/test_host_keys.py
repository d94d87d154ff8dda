"""Host keys: known, unknown, changed, revoked, pinned, recorded; as OpenSSH judges them."""

from __future__ import annotations

import base64
import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import HostKeyError, HostKeyMismatch, HostKeyUnknown
from launcher.transport import host_keys
from launcher.transport.ssh import SshTransport
from tests.support.keys import KeyPair, make_key
from tests.support.servers import SshHost
from tests.support.sshd import find_sshd, running_sshd

needs_sshd = pytest.mark.skipif(find_sshd() is None, reason="sshd is missing here (CI has it)")


def log_in(host: SshHost, **spec: object) -> None:
    """Logs in once, with the manifest's words given."""
    assert host.node.ssh is not None
    target = dataclasses.replace(host.node, ssh=dataclasses.replace(host.node.ssh, **spec))
    transport = SshTransport(host.files)
    try:
        connection = transport.open(target, ["echo", "in"], timeout_s=15.0)
        assert connection.receive(10) == b"in\n"
    finally:
        transport.close()


def refusal(host: SshHost, **spec: object) -> HostKeyError:
    with pytest.raises(HostKeyError) as caught:
        log_in(host, **spec)
    assert caught.value.hint
    assert caught.value.exit_code == 69
    return caught.value


@pytest.fixture
def host(shared_ssh_host: SshHost, tmp_path: Path) -> SshHost:
    """The shared server, with a known_hosts of the test's own."""
    own = dataclasses.replace(
        shared_ssh_host, config=tmp_path / "config", known_hosts=tmp_path / "known_hosts"
    )
    own.config.write_text(
        shared_ssh_host.config.read_text().replace(
            str(shared_ssh_host.known_hosts), str(own.known_hosts)
        )
    )
    own.known_hosts.write_text(own.known_line)
    return own


def also(host: SshHost, line: str) -> None:
    host.config.write_text(host.config.read_text() + f"  {line}\n")


def test_a_known_key(host: SshHost) -> None:
    log_in(host)


def test_an_unknown_key_is_refused_with_its_fingerprint(host: SshHost) -> None:
    host.known_hosts.write_text("")
    error = refusal(host)
    assert type(error) is HostKeyUnknown
    assert host.host_key.fingerprint in error.message
    assert f"[{host.address}]:{host.port}" in error.message
    assert "ssh-keygen -lf" in error.hint
    assert host.known_hosts.read_text() == ""


def test_no_known_hosts_file_at_all(host: SshHost) -> None:
    host.known_hosts.unlink()
    assert type(refusal(host)) is HostKeyUnknown


def test_a_changed_key_is_refused_with_both_fingerprints(host: SshHost, tmp_path: Path) -> None:
    old = make_key(tmp_path / "old")
    host.known_hosts.write_text(
        "# a comment\n" + host.known_line.replace(host.host_key.public, old.public)
    )
    error = refusal(host, accept_new=True)
    assert type(error) is HostKeyMismatch
    assert host.host_key.fingerprint in error.message
    assert old.fingerprint in error.message
    assert f"{host.known_hosts}:2" in error.message
    assert "ssh-keygen -R" in error.hint


def test_strict_checking_off_does_not_wave_a_changed_key_through(
    host: SshHost, tmp_path: Path
) -> None:
    old = make_key(tmp_path / "old")
    host.known_hosts.write_text(host.known_line.replace(host.host_key.public, old.public))
    also(host, "StrictHostKeyChecking no")
    assert type(refusal(host)) is HostKeyMismatch


def test_a_hashed_entry(host: SshHost) -> None:
    subprocess.run(
        ["ssh-keygen", "-H", "-f", str(host.known_hosts)], check=True, capture_output=True
    )
    assert host.address not in host.known_hosts.read_text()
    log_in(host)


def test_a_hashed_entry_of_another_port_is_not_it(host: SshHost) -> None:
    line = host_keys.known_line("[127.0.0.1]:1", "ssh-ed25519", blob(host.host_key), hashed=True)
    host.known_hosts.write_text(line)
    assert type(refusal(host)) is HostKeyUnknown


def test_an_entry_without_the_port_will_do(host: SshHost) -> None:
    host.known_hosts.write_text(f"{host.address} {host.host_key.public}\n")
    log_in(host)


@pytest.mark.parametrize("names", ["other,{n}", "[127.0.*]:{p}", "{n} ", "[127.0.0.?]:*"])
def test_names_and_patterns(host: SshHost, names: str) -> None:
    shown = names.format(n=f"[{host.address}]:{host.port}", p=host.port)
    host.known_hosts.write_text(f"{shown} {host.host_key.public}\n")
    log_in(host)


def test_a_negated_pattern(host: SshHost) -> None:
    host.known_hosts.write_text(f"*,!*127* {host.host_key.public}\n")
    assert type(refusal(host)) is HostKeyUnknown


def test_a_revoked_key_is_refused_even_where_it_is_known(host: SshHost) -> None:
    host.known_hosts.write_text(host.known_line + f"@revoked * {host.host_key.public}\n")
    error = refusal(host, accept_new=True)
    assert type(error) is HostKeyMismatch
    assert "revoked" in error.message
    assert ":2" in error.message


def test_an_authority_alone_makes_nothing_known(host: SshHost) -> None:
    host.known_hosts.write_text(f"@cert-authority * {host.host_key.public}\n")
    assert type(refusal(host)) is HostKeyUnknown


def test_bad_lines_are_passed_over(host: SshHost) -> None:
    junk = "one\n|1|x|y ssh-ed25519 AAAA\nh ssh-ed25519 !!!\n@revoked\n\xff\xfe\n"
    host.known_hosts.write_bytes(junk.encode("latin-1") + host.known_line.encode())
    log_in(host)


def test_accept_new_records_the_key(host: SshHost) -> None:
    host.known_hosts.write_text("other ssh-ed25519 AAAA")
    log_in(host, accept_new=True)
    assert host.known_hosts.read_text().splitlines()[1] == host.known_line.strip()
    log_in(host)


def test_accept_new_makes_the_file(host: SshHost) -> None:
    host.known_hosts.unlink()
    also(host, "StrictHostKeyChecking accept-new")
    also(host, "HashKnownHosts yes")
    log_in(host)
    assert host.known_hosts.read_text().startswith("|1|")
    assert host.known_hosts.stat().st_mode & 0o777 == 0o600
    found = subprocess.run(
        ["ssh-keygen", "-F", f"[{host.address}]:{host.port}", "-f", str(host.known_hosts)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert host.host_key.public in found.stdout


def test_a_key_that_cannot_be_recorded_is_refused(host: SshHost) -> None:
    host.known_hosts.unlink()
    host.known_hosts.mkdir()
    assert type(refusal(host, accept_new=True)) is HostKeyUnknown


def test_a_host_key_alias(host: SshHost) -> None:
    also(host, "HostKeyAlias the-node")
    assert "the-node" in refusal(host).message
    host.known_hosts.write_text(f"the-node {host.host_key.public}\n")
    log_in(host)


def test_a_pinned_key_decides_alone(host: SshHost, tmp_path: Path) -> None:
    old = make_key(tmp_path / "old")
    host.known_hosts.write_text(host.known_line.replace(host.host_key.public, old.public))
    log_in(host, host_key=host.host_key.fingerprint)
    host.known_hosts.write_text(host.known_line)
    error = refusal(host, host_key=old.fingerprint)
    assert type(error) is HostKeyMismatch
    assert old.fingerprint in error.message
    assert host.host_key.fingerprint in error.message


@pytest.fixture(scope="module")
def three_keys(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[SshHost, dict[str, KeyPair]]]:
    if find_sshd() is None:
        pytest.skip("sshd is missing here (CI has it)")
    base = tmp_path_factory.mktemp("three-keys")
    keys = {kind: make_key(base / kind, kind) for kind in ("ed25519", "ecdsa", "rsa")}
    with running_sshd(base / "ssh", host_keys=tuple(keys.values())) as host:
        yield host, keys


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_server_is_asked_for_the_key_that_is_known(
    three_keys: tuple[SshHost, dict[str, KeyPair]], kind: str
) -> None:
    host, keys = three_keys
    host.known_hosts.write_text(host.known_line.replace(keys["ed25519"].public, keys[kind].public))
    log_in(host)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_pin_may_be_of_any_of_the_servers_keys(
    three_keys: tuple[SshHost, dict[str, KeyPair]], kind: str
) -> None:
    host, keys = three_keys
    log_in(host, host_key=keys[kind].fingerprint)


def test_a_known_type_that_the_server_no_longer_has_counts_as_changed(
    host: SshHost, tmp_path: Path
) -> None:
    old = make_key(tmp_path / "old", "rsa")
    host.known_hosts.write_text(host.known_line.replace(host.host_key.public, old.public))
    assert type(refusal(host, accept_new=True)) is HostKeyMismatch


@needs_sshd
def test_a_server_that_shows_a_certificate_is_judged_by_its_key(tmp_path: Path) -> None:
    authority, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority.path), "-I", "x", "-h", f"{key.path}.pub"],
        check=True,
    )
    settings = [f"HostCertificate {key.path}-cert.pub"]
    with running_sshd(tmp_path / "ssh", host_keys=[key], settings=settings) as host:
        log_in(host)
        host.known_hosts.write_text(f"@cert-authority * {authority.public}\n")
        assert type(refusal(host)) is HostKeyUnknown


def blob(key: KeyPair) -> bytes:
    return base64.b64decode(key.public.split()[1])


def test_the_fingerprint_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", f"{key.path}.pub"], capture_output=True, text=True, check=True
    )
    assert host_keys.fingerprint(blob(key)) in shown.stdout
