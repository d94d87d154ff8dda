"""`flowlaunch init`: a first cluster.yaml for hosts that ssh reaches."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import options

if TYPE_CHECKING:
    from launcher.core.model import SshSpec


@click.command("init", epilog='Example: flowlaunch init "gpu[01-04]" --user train')
@click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
@click.option("--user", metavar="NAME", help="Who logs in; else as ~/.ssh/config says.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="The SSH port.")
@click.option("--identity", metavar="FILE", help="The private key to log in with.")
@click.option("--jump", metavar="HOST", help="A host to go through.")
@click.option("--accept-new", is_flag=True, help="Record host keys that are not known yet.")
@click.option("-o", "--output", metavar="FILE", default=options.DEFAULT_MANIFEST, help="Where to.")
@click.option("--force", is_flag=True, help="Overwrite FILE where it exists.")
def command(
    hosts: tuple[str, ...],
    user: str | None,
    port: int | None,
    identity: str | None,
    jump: str | None,
    accept_new: bool,
    output: str,
    force: bool,
) -> None:
    """Write a commented cluster.yaml for the hosts that you name.

    HOST is what you would say to ssh, or a range of such: gpu[01-04], user@far. Logs in to each,
    measures CPUs, GPUs and addresses, and has the hosts dial each other to find the network that
    all of them share. Writes nothing where a host cannot be used.
    """
    from launcher.cli import check_view, render
    from launcher.core.findings import find, unusable
    from launcher.core.first_manifest import first_manifest
    from launcher.errors import EXIT_NODE
    from launcher.run.init import choose_addresses, hosts_cluster, look_at, manifest_of

    path = Path(output)
    _refuse_to_overwrite(path, force)
    cluster = hosts_cluster(_logins(hosts, user, port, identity, jump, accept_new))
    with options.TransportPool() as transports, check_view.Waiting() as waiting:
        seen = look_at(cluster, transports(), waiting.on_progress)
        troubled = [finding for finding in find(seen) if finding.topic in ("login", "agent")]
        if not troubled:
            found = choose_addresses(cluster, seen, transports(), waiting.on_progress)
    if troubled:
        check_view.show_findings(troubled)
        render.notice(f"{path} was not written; mend these hosts, or leave them out")
        raise click.exceptions.Exit(EXIT_NODE)
    text = first_manifest(manifest_of(found, _said(hosts, user)))
    _write(path, text, force)
    findings = find(found.survey)
    check_view.show_findings(findings)
    render.notice(f"wrote {path}: {len(found.survey.nodes)} nodes")
    lacking = any(finding.topic == "runtime" for finding in findings)
    steps = "`flowlaunch provision`, then `flowlaunch check`" if lacking else "`flowlaunch check`"
    where = "" if output == options.DEFAULT_MANIFEST else f" (each with -c {output})"
    render.notice(f"next: {steps}{where}")
    if unusable([finding for finding in findings if finding.topic != "runtime"]):
        raise click.exceptions.Exit(EXIT_NODE)


def _refuse_to_overwrite(path: Path, force: bool) -> None:
    from launcher.errors import UsageError

    if path.exists() and not force:
        raise UsageError(
            "it exists and is left as it is",
            where=str(path),
            hint="write another file with -o FILE, or overwrite it with --force",
        )


def _logins(
    hosts: Sequence[str],
    user: str | None,
    port: int | None,
    identity: str | None,
    jump: str | None,
    accept_new: bool,
) -> list[SshSpec]:
    """Returns how to log in to each host, ranges written out.

    Raises:
        UsageError: a range cannot be read, or a host is named twice.
    """
    from launcher.core.model import SshSpec
    from launcher.core.nodeset import SetError, expand
    from launcher.errors import UsageError

    logins: dict[str, SshSpec] = {}
    for text in hosts:
        who, _, pattern = text.rpartition("@")
        try:
            names = expand(pattern)
        except SetError as error:
            raise UsageError(str(error), where="HOST", hint="e.g. gpu[01-04]") from None
        for host in names:
            if host in logins or not host:
                raise UsageError(f"{host or text!r} is no host, or is named twice", where="HOST")
            logins[host] = SshSpec(host, port, who or user, identity, jump, accept_new=accept_new)
    return list(logins.values())


def _said(hosts: Sequence[str], user: str | None) -> str:
    words = ["flowlaunch", "init", *hosts, *(["--user", user] if user else [])]
    return shlex.join(words)


def _write(path: Path, text: str, force: bool) -> None:
    """Writes the file whole or not at all; without `force`, never over another.

    Raises:
        UsageError: there is one by now, or it cannot be written.
    """
    from launcher.errors import UsageError
    from launcher.store.atomic import replace_file

    _refuse_to_overwrite(path, force)
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(path)) from None
