"""cluster.yaml to a ClusterSpec, or every problem at once with its line.

What reads YAML, validates and expands ranges is imported where it is used: commands that need no
manifest do not wait for pydantic, yaml and ClusterShell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from launcher.core.model import (
    EMPTY,
    BestPolicy,
    CheckpointPolicy,
    ClusterSpec,
    Extreme,
    LogPolicy,
    NodeSpec,
    SshSpec,
    TransportKind,
)
from launcher.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from launcher.core.manifest_nodes import Cluster, Entry
    from launcher.core.manifest_schema import (
        CheckpointsForm,
        DefaultsForm,
        ManifestForm,
        NodeForm,
    )

_T = TypeVar("_T")


def parse_manifest(text: str, source: str) -> ClusterSpec:
    """Reads a manifest.

    Args:
        text: the YAML.
        source: how the text is called in problems, such as its path.

    Raises:
        ManifestError: with a line for each problem, each starting with `source`.
    """
    from launcher.core.manifest_form import check_form
    from launcher.core.manifest_nodes import read_cluster
    from launcher.core.problem import render_all
    from launcher.core.yaml_tree import YamlError, read_tree

    try:
        tree, problems = read_tree(text)
    except YamlError as error:
        raise ManifestError(render_all([error.problem], source)) from None
    form, form_problems = check_form(tree)
    cluster, node_problems = read_cluster(tree)
    problems = problems + form_problems + node_problems
    if form is None or problems:
        raise ManifestError(render_all(problems, source))
    return _spec(form, cluster, source)


def select_nodes(spec: ClusterSpec, expression: str) -> tuple[NodeSpec, ...]:
    """Returns the nodes that a SET names, in manifest order; a spare takes part where it is named.

    Args:
        spec: the cluster.
        expression: such as ``@fast,gpu[01-16]!gpu07``.

    Raises:
        UsageError: the set cannot be read, names a node or group that there is not, or is empty.
    """
    from launcher.core.nodeset import SetError, evaluate, fold
    from launcher.core.problem import quoted

    nodes = (*spec.nodes, *spec.spares)
    try:
        selection = evaluate(expression, spec.groups)
    except SetError as error:
        raise UsageError(str(error), where="--nodes", hint=_what_there_is(spec)) from None
    unknown = selection.named - {node.name for node in nodes}
    if unknown:
        message = f"no node is called {quoted(fold(sorted(unknown)))}"
        raise UsageError(message, where="--nodes", hint=_what_there_is(spec))
    chosen = tuple(node for node in nodes if node.name in selection.chosen)
    if not chosen:
        message = f"{quoted(expression)} leaves no node"
        raise UsageError(message, where="--nodes", hint=_what_there_is(spec))
    return chosen


def _what_there_is(spec: ClusterSpec) -> str:
    from launcher.core.nodeset import fold

    nodes = fold(node.name for node in (*spec.nodes, *spec.spares))
    groups = ", ".join(f"@{group}" for group in spec.groups)
    return f"the nodes are {nodes}" + (f"; the groups are {groups}" if groups else "")


def _spec(form: ManifestForm, cluster: Cluster, source: str) -> ClusterSpec:
    builder = _NodeBuilder(form.defaults)
    nodes = [
        node
        for entry, node_form in zip(cluster.entries, form.nodes, strict=True)
        for node in builder.nodes(entry, node_form)
    ]
    return ClusterSpec(
        name=form.name,
        nodes=tuple(node for node in nodes if node.name not in cluster.spares),
        ctrl_port=_fixed(form.ctrl_port),
        data_port=_fixed(form.data_port),
        groups=MappingProxyType(dict(cluster.groups)),
        env=_frozen(form.env or {}),
        checkpoints=_checkpoints(form.checkpoints),
        spares=tuple(node for node in nodes if node.name in cluster.spares),
        source=source,
        collect=tuple(form.collect or ()),
        logs=LogPolicy(form.logs.max_bytes) if form.logs else LogPolicy(),
    )


def _fixed(value: object) -> int | None:
    """Returns a number, or None for the word that leaves it open."""
    return value if isinstance(value, int) else None


def _frozen(env: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(env)) if env else EMPTY


def _checkpoints(form: CheckpointsForm | None) -> CheckpointPolicy:
    if form is None:
        return CheckpointPolicy()
    best = form.keep_best
    return CheckpointPolicy(
        keep=form.keep,
        keep_every=form.keep_every,
        keep_best=BestPolicy(best.metric, Extreme(best.mode)) if best else None,
    )


class _NodeBuilder:
    """Makes the nodes of an entry, with the defaults under what it says itself."""

    def __init__(self, defaults: DefaultsForm | None) -> None:
        self._levels: tuple[DefaultsForm, ...] = (defaults,) if defaults is not None else ()
        self._default_env = _frozen((defaults.env or {}) if defaults is not None else {})

    def nodes(self, entry: Entry, form: NodeForm) -> Iterable[NodeSpec]:
        levels = (form, *self._levels)
        transport = TransportKind(_first(level.transport for level in levels) or "ssh")
        slots = _first(level.slots for level in levels)
        python = _first(level.python for level in levels) or "auto"
        workdir = _first(level.workdir for level in levels)
        env = _frozen({**self._default_env, **form.env}) if form.env else self._default_env
        login = _login(levels) if transport is TransportKind.SSH else None
        for name, addr, host in zip(entry.names, entry.addrs, entry.hosts, strict=True):
            yield NodeSpec(
                name=name,
                addr=addr,
                transport=transport,
                slots=1 if slots is None else _fixed(slots),
                python=python,
                workdir=workdir,
                env=env,
                ssh=replace(login, host=host or addr) if login is not None else None,
            )


def _login(levels: tuple[DefaultsForm, ...]) -> SshSpec:
    """Returns what all of the levels say of the login, the first of them that says it holding."""
    said = [level.ssh for level in levels if level.ssh is not None]
    users = (level.user or (level.ssh.user if level.ssh else None) for level in levels)
    return SshSpec(
        host="",
        port=_first(ssh.port for ssh in said),
        user=_first(users),
        identity=_first(ssh.identity for ssh in said),
        jump=_first(ssh.jump for ssh in said),
        host_key=_first(ssh.host_key for ssh in said),
        accept_new=_first(ssh.accept_new for ssh in said) or False,
    )


def _first(values: Iterable[_T | None]) -> _T | None:
    return next((value for value in values if value is not None), None)
