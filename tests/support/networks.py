"""A second network between namespaces, and firewalls inside of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from tests.support.netns import NetHost


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@contextlib.contextmanager
def second_network(hosts: Sequence[NetHost]) -> Iterator[list[str]]:
    """Gives each host a second interface, eth1, on a network that this machine is not part of.

    Yields:
        The address of each host there.
    """
    tag = f"fld{os.getpid()}"
    prefix = f"172.{16 + os.getpid() % 16}.{os.getpid() // 16 % 250}"
    _ip("link", "add", tag, "type", "bridge")
    try:
        _ip("link", "set", tag, "up")
        for number, host in enumerate(hosts, start=1):
            near = f"{tag}{number}"
            far = ("peer", "name", "eth1", "netns", host.namespace)
            _ip("link", "add", near, "type", "veth", *far)
            _ip("link", "set", near, "master", tag, "up")
            _ip("-n", host.namespace, "addr", "add", f"{prefix}.{number}/24", "dev", "eth1")
            _ip("-n", host.namespace, "link", "set", "eth1", "up")
        yield [f"{prefix}.{number}" for number, _ in enumerate(hosts, start=1)]
    finally:
        _ip("link", "del", tag)


def firewall(host: NetHost, *accepted: str, verdict: str = "drop") -> None:
    """Lets nothing in but answers, SSH, what the host says to itself, and what these rules accept.

    Args:
        host: the namespace; the rules end with it.
        accepted: what an nft rule says in front of ``accept``, such as ``tcp dport 12138``.
        verdict: what becomes of the rest, such as ``drop`` or ``reject with tcp reset``.
    """
    if shutil.which("nft") is None:
        assert os.environ.get("CI") != "true", "nft is missing: install nftables"
        pytest.skip("needs nftables (CI has it)")
    rules = ["ct state established,related accept", "iif lo accept", "tcp dport 22 accept"]
    rules += [f"{rule} accept" for rule in accepted]
    lines = ["flush ruleset", "table inet filter {", "chain input {"]
    lines += ["type filter hook input priority 0; policy accept;", *rules]
    lines += [f"meta l4proto tcp {verdict}", "}", "}"]
    command = ["ip", "netns", "exec", host.namespace, "nft", "-f", "-"]
    text = "\n".join(lines) + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
