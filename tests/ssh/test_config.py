"""What is read from a configuration, side by side with ``ssh -G`` on the same file."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from launcher.core.model import SshSpec
from launcher.errors import SshConfigError
from launcher.transport.ssh_config import ConfigFile, ConfigLineError, read_options, split_words
from launcher.transport.ssh_target import SshFiles, target_of

SINGLE = {
    "hostname": None,
    "port": "22",
    "user": None,
    "identitiesonly": "no",
    "proxyjump": "none",
    "proxycommand": "none",
    "hostkeyalias": "none",
    "connecttimeout": "none",
    "stricthostkeychecking": "ask",
    "hashknownhosts": "no",
    "batchmode": "no",
    "addressfamily": "any",
}
ADDED = ("identityfile", "certificatefile", "userknownhostsfile")

CASES: dict[str, tuple[str, str]] = {
    "empty": ("", "gpu1"),
    "plain": ("Host gpu1\n  HostName 10.0.0.1\n  Port 2222\n  User train\n", "gpu1"),
    "other-host": ("Host gpu2\n  Port 2222\n", "gpu1"),
    "before-any-host": ("Port 2022\nHost gpu1\n  Port 2222\n", "gpu1"),
    "first-wins": ("Host gpu*\n  User a\nHost gpu1\n  User b\n  Port 7\n", "gpu1"),
    "star": ("Host *\n  User everybody\n", "gpu1"),
    "question-mark": ("Host gpu?\n  User q\n", "gpu1"),
    "question-mark-needs-one": ("Host gpu1?\n  User q\n", "gpu1"),
    "no-character-class": ("Host gpu[12]\n  User q\n", "gpu1"),
    "two-patterns": ("Host a gpu1 b\n  User q\n", "gpu1"),
    "negated": ("Host gpu* !gpu1\n  User q\n", "gpu1"),
    "negated-other": ("Host gpu* !gpu2\n  User q\n", "gpu1"),
    "only-negated": ("Host !gpu2\n  User q\n", "gpu1"),
    "case-of-keywords": ("HOST gpu1\n  hOsTnAmE up.example\n  PORT 99\n", "gpu1"),
    "equals": ("Host=gpu1\nHostName = eq.example\nPort=44\n", "gpu1"),
    "quotes": ('Host "gpu1"\n  User "train"\n  IdentityFile "/k/with space"\n', "gpu1"),
    "comments": ("# top\nHost gpu1 # right\n  Port 5 # here\n\t# tab\n", "gpu1"),
    "tabs": ("Host\tgpu1\n\tPort\t77\n", "gpu1"),
    "hostname-token": ("Host gpu1\n  HostName %h.lab.example\n", "gpu1"),
    "hostname-percent": ("Host gpu1\n  HostName a%%b\n", "gpu1"),
    "identities-add-up": (
        "Host gpu1\n  IdentityFile /k/a\nHost *\n  IdentityFile /k/b\n  IdentityFile /k/a\n",
        "gpu1",
    ),
    "identities-only": ("Host gpu1\n  IdentitiesOnly yes\n  IdentityFile /k/a\n", "gpu1"),
    "certificate": ("Host gpu1\n  CertificateFile /k/a-cert.pub\n", "gpu1"),
    "known-hosts": ("Host gpu1\n  UserKnownHostsFile /k/one /k/two\n", "gpu1"),
    "alias": ("Host gpu1\n  HostKeyAlias the-gpu\n  HashKnownHosts yes\n", "gpu1"),
    "timeout": ("Host gpu1\n  ConnectTimeout 7\n", "gpu1"),
    "strict-no": ("Host gpu1\n  StrictHostKeyChecking no\n", "gpu1"),
    "strict-off": ("Host gpu1\n  StrictHostKeyChecking off\n", "gpu1"),
    "strict-new": ("Host gpu1\n  StrictHostKeyChecking accept-new\n", "gpu1"),
    "batch": ("Host gpu1\n  BatchMode yes\n", "gpu1"),
    "family": ("Host gpu1\n  AddressFamily inet\n", "gpu1"),
    "jump": ("Host gpu1\n  ProxyJump bastion\n", "gpu1"),
    "jump-chain": ("Host gpu1\n  ProxyJump a@one:2222,two\n", "gpu1"),
    "jump-none-first": ("Host gpu1\n  ProxyJump none\nHost *\n  ProxyJump bastion\n", "gpu1"),
    "command": ("Host gpu1\n  ProxyCommand nc -x 'a b' %h %p # not a comment\n", "gpu1"),
    "command-before-jump": (
        "Host gpu1\n  ProxyCommand nc %h %p\nHost *\n  ProxyJump bastion\n",
        "gpu1",
    ),
    "include": ("Include {dir}/more\nHost gpu1\n  User late\n", "gpu1"),
    "include-glob": ("Include {dir}/conf.d/*.conf\n", "gpu1"),
    "include-missing": ("Include {dir}/nothing-*\nHost gpu1\n  User x\n", "gpu1"),
    "include-in-host": ("Host gpu2\n  Include {dir}/more\nHost gpu1\n  Port 3\n", "gpu1"),
    "include-in-own-host": ("Host gpu1\n  Include {dir}/more\n  Port 3\n", "gpu1"),
    "match-host": ("Match host gpu1\n  User m\n", "gpu1"),
    "match-host-sees-hostname": (
        "Host gpu1\n  HostName real.example\nMatch host real.*\n  User m\n",
        "gpu1",
    ),
    "match-originalhost": (
        "Host gpu1\n  HostName real.example\nMatch originalhost gpu1\n  User m\n",
        "gpu1",
    ),
    "match-user": ("Host gpu1\n  User u\nMatch user u\n  Port 6\n", "gpu1"),
    "match-two": ("Match host gpu1 user nobody-else\n  Port 6\n", "gpu1"),
    "match-negated": ("Match host gpu1 !user nobody-else\n  Port 6\n", "gpu1"),
    "match-list": ("Match host a,gpu*,!gpu2\n  Port 6\n", "gpu1"),
    "match-all": ("Match all\n  Port 6\n", "gpu1"),
    "match-final": (
        "Match final host real.*\n  Port 6\nHost gpu1\n  HostName real.example\n",
        "gpu1",
    ),
    "match-exec-true": ("Match exec true\n  Port 6\n", "gpu1"),
    "match-exec-false": ("Match exec false\n  Port 6\n", "gpu1"),
    "match-exec-token": ('Match exec "test %n = gpu1"\n  Port 6\n', "gpu1"),
    "numeric": ("Host 10.*\n  User n\n", "10.1.2.3"),
    "address-does-not-match-name": ("Host gpu1\n  HostName 10.1.2.3\n  User n\n", "10.1.2.3"),
}

needs_ssh = pytest.mark.skipif(
    shutil.which("ssh") is None and os.environ.get("CI") != "true", reason="no ssh client here"
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # ssh goes by the password database, not by HOME.
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.setenv("SHELL", "/bin/sh")
    (tmp_path / "more").write_text("User included\nHost gpu1\n  Port 1001\nHost x\n  Port 1\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.conf").write_text("Host gpu1\n  User from-b\n  Port 2\n")
    (tmp_path / "conf.d" / "a.conf").write_text("Host gpu1\n  User from-a\n")
    (tmp_path / "conf.d" / ".hidden.conf").write_text("Host gpu1\n  User hidden\n")
    path = tmp_path / "config"
    path.touch(mode=0o600)
    return path


def ask_ssh(config: Path, alias: str) -> dict[str, tuple[str, ...]]:
    done = subprocess.run(
        ["ssh", "-F", str(config), "-G", alias], capture_output=True, text=True, check=True
    )
    found: dict[str, tuple[str, ...]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        if key == "userknownhostsfile":
            found[key] = tuple(value.split())
        elif key in ADDED:
            found[key] = (*found.get(key, ()), value)
        elif key in SINGLE:
            found[key] = (value,)
    return found


def normal(value: str) -> str:
    return {"true": "yes", "false": "no", "off": "no"}.get(value, value)


@needs_ssh
@pytest.mark.parametrize(("text", "alias"), CASES.values(), ids=CASES.keys())
def test_same_as_ssh(config: Path, text: str, alias: str) -> None:
    config.write_text(text.replace("{dir}", str(config.parent)))
    theirs = ask_ssh(config, alias)
    ours = read_options([ConfigFile(config, is_user=True)], alias, {})
    for key, default in SINGLE.items():
        expected = theirs.get(key, (default,))[0]
        if key == "user":
            default = pwd.getpwuid(os.getuid()).pw_name
        assert normal(ours.get(key, (default,))[0] or "") == normal(expected or ""), key
    unset = ask_ssh(Path("/dev/null"), alias)
    for key in ADDED:
        assert ours.get(key, unset.get(key)) == theirs.get(key), key


@needs_ssh
def test_tokens_and_variables_in_key_files_as_ssh(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYDIR", "/keys")
    names = ["~/k", "%d/k", "/k/%h-%n-%p-%r", "/k/%u-%i-%%", "/k/%L-%l", "/k/%k", "${KEYDIR}/x"]
    config.write_text(
        "Host gpu1\n  HostName real.example\n  Port 2222\n  User train\n  HostKeyAlias al\n"
        + "".join(f"  IdentityFile {name}\n" for name in names)
    )
    done = subprocess.run(
        ["ssh", "-F", str(config), "-v", "-o", "ProxyCommand=true", "gpu1"],
        capture_output=True,
        text=True,
        check=False,
    )
    marker = "debug1: identity file "
    theirs = [
        line.removeprefix(marker).rpartition(" type ")[0]
        for line in done.stderr.splitlines()
        if line.startswith(marker) and not line.rpartition(" type ")[0].endswith("-cert")
    ]
    ours = target_of("n", SshSpec("gpu1"), SshFiles.only(config)).identities
    assert [str(path) for path in ours] == theirs


def test_the_manifest_stands_above_the_configuration(config: Path) -> None:
    config.write_text(
        "Host gpu1\n  HostName h\n  Port 1\n  User u\n  IdentityFile /k/c\n  ProxyJump one\n"
    )
    spec = SshSpec("gpu1", port=2, user="v", identity="/k/m", jump="two")
    target = target_of("n", spec, SshFiles.only(config))
    assert (target.host, target.port, target.user) == ("h", 2, "v")
    assert [str(path) for path in target.identities] == ["/k/m", "/k/c"]
    assert [hop.host for hop in target.hops] == ["two"]


def test_hops_resolve_through_the_configuration(config: Path) -> None:
    config.write_text(
        "Host gpu1\n  ProxyJump one,u@two:23\n"
        "Host one\n  HostName 10.0.0.1\n  ProxyJump zero\n"
        "Host two\n  HostName 10.0.0.2\n  ProxyJump never\n"
        "Host zero\n  User z\n"
    )
    target = target_of("n", SshSpec("gpu1"), SshFiles.only(config))
    assert [(hop.host, hop.port) for hop in target.hops] == [
        ("zero", 22),
        ("10.0.0.1", 22),
        ("10.0.0.2", 23),
    ]
    assert [hop.user for hop in target.hops][2] == "u"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Host gpu1\n  ProxyJump gpu1\n", "circle"),
        ("Match tagged fast\n  Port 1\n", "Match tagged is not supported"),
        ("Match localnetwork 10.0.0.0/8\n  Port 1\n", "config:1"),
        ("Host gpu1\n  CanonicalizeHostname yes\n", "CanonicalizeHostname"),
        ("Host gpu1\n  Port none-such-service-0\n", "Port"),
        ("Host gpu1\n  Port 70000\n", "1 to 65535"),
        ("Host gpu1\n  ConnectTimeout soon\n", "ConnectTimeout"),
        ("Host gpu1\n  HostName %x\n", "%x"),
        ("Host gpu1\n  IdentityFile ${NO_SUCH_VARIABLE}/k\n", "NO_SUCH_VARIABLE"),
        ("Host gpu1\n  IdentityFile %z\n", "%z"),
        ('Host gpu1\n  User "open\n', "config:2: a quote is not closed"),
        ("Host\n", "config:1"),
        ("Include {dir}/config\n", "too deep"),
        ("Host gpu1\n  ProxyJump a:b:c\n", "expected [user@]host[:port]"),
    ],
)
def test_what_cannot_be_followed_is_said(config: Path, text: str, words: str) -> None:
    config.write_text(text.replace("{dir}", str(config.parent)))
    with pytest.raises(SshConfigError) as caught:
        target_of("n7", SshSpec("gpu1"), SshFiles.only(config))
    assert words in str(caught.value)
    assert caught.value.node == "n7"
    assert caught.value.hint


def test_a_configuration_that_others_may_write_is_refused(config: Path) -> None:
    config.chmod(0o622)
    with pytest.raises(ConfigLineError, match="bad owner or permissions"):
        read_options([ConfigFile(config, is_user=True)], "gpu1", {})


def test_an_unreadable_configuration_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigLineError, match="cannot be read"):
        read_options([ConfigFile(tmp_path, is_user=False)], "gpu1", {})


def test_no_configuration_is_no_problem(tmp_path: Path) -> None:
    options = read_options([ConfigFile(tmp_path / "none", is_user=True)], "gpu1", {})
    assert options == {"hostname": ("gpu1",)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("'a \"b' c", ['a "b', "c"]),
        ('a"b c"d', ["ab cd"]),
        ('"" x', ["", "x"]),
        ("a#b #c", ["a#b"]),
        ("a\\\\b", ["a\\b"]),
        ("a\\nb", ["a\\nb"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words
