"""The form of cluster.yaml: what pydantic validates, and what editors are told.

Only the form of single values is here. What takes several of them together (ranges, duplicates,
groups) is in `manifest_nodes`. This module imports pydantic and is imported where a manifest is
read, never before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

MOST_SLOTS = 1024
SECRET_KEYS = frozenset({"password", "passwd", "passphrase"})

# What the launcher itself sets for a worker. Another value would break the rendezvous.
RESERVED_ENV = frozenset(
    {
        "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK",
        "FLOWLAUNCH_RUN_ID", "FLOWLAUNCH_NODE", "FLOWLAUNCH_NODE_RANK", "FLOWLAUNCH_NNODES",
        "FLOWLAUNCH_MACHINES", "FLOWLAUNCH_ATTEMPT", "FLOWLAUNCH_CHECKPOINT_DIR",
        "FLOWLAUNCH_RESUME_FROM", "FLOWLAUNCH_DRY_RUN",
    }
)  # fmt: skip


def _expect(what: str) -> WrapValidator:
    """Makes every failure of a value, also of each arm of a union, one: ``expected …``."""

    def check(value: object, inner: Callable[[object], object]) -> object:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError("expected", "{what}", {"what": what}) from None

    return WrapValidator(check)


def _at_most_slots(value: int | str) -> int | str:
    if isinstance(value, int) and value > MOST_SLOTS:
        raise PydanticCustomError("expected", "{what}", {"what": f"at most {MOST_SLOTS} workers"})
    return value


def _not_reserved(name: str) -> str:
    if name in RESERVED_ENV:
        raise PydanticCustomError("problem", "flowlaunch sets this for each worker itself")
    return name


def _stays_inside(pattern: str) -> str:
    if pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
        what = "a path inside the worker's working directory"
        raise PydanticCustomError("expected", "{what}", {"what": what})
    return pattern


def _text(pattern: str) -> object:
    return Field(min_length=1, max_length=4096, pattern=pattern)


_LINE = r"^[^\x00-\x1f\x7f]+$"
Text = Annotated[str, _text(_LINE), _expect("text")]
Word = Annotated[
    str, _text(r"^[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*$"), _expect("a word without blanks")
]
Positive = Annotated[int, Field(ge=1), _expect("an integer of at least 1")]
Port = Annotated[int, Field(ge=1, le=65535), _expect("a port from 1 to 65535")]
AutoPort = Annotated[
    Annotated[int, Field(ge=1, le=65535)] | Literal["auto"],
    _expect('a port from 1 to 65535 or "auto"'),
]
Slots = Annotated[
    Annotated[int, Field(ge=1)] | Literal["gpus"],
    _expect('an integer of at least 1 or "gpus"'),
    AfterValidator(_at_most_slots),
]
Python = Annotated[
    str,
    _text(r"^(auto|(/|~/)[^\x00-\x1f\x7f]+)$"),
    _expect('"auto", an absolute path, or one that starts with "~/"'),
]
Folder = Annotated[
    str,
    _text(r"^(/|~/)[^\x00-\x1f\x7f]*$"),
    _expect('an absolute path, or one that starts with "~/"'),
]
HostKey = Annotated[
    str,
    _text(r"^SHA256:[A-Za-z0-9+/]{43}=?$"),
    _expect("a fingerprint as ssh-keygen -l prints it, SHA256: and 43 characters"),
]
EnvName = Annotated[
    str,
    _text(r"^[A-Za-z_][A-Za-z0-9_]*$"),
    _expect("a name of letters, digits and '_' that does not start with a digit"),
    AfterValidator(_not_reserved),
]
GroupName = Annotated[
    str,
    _text(r"^[A-Za-z_][A-Za-z0-9_.-]*$"),
    _expect("a name of letters, digits, '_', '.' and '-' that starts with a letter"),
]
EnvText = Annotated[str, Field(pattern=r"^[^\x00]*$"), _expect("text")]
CollectPattern = Annotated[Text, AfterValidator(_stays_inside)]
Flag = Annotated[bool, _expect("true or false")]
Transport = Annotated[Literal["local", "ssh"], _expect('"ssh" or "local"')]
Mode = Annotated[Literal["min", "max"], _expect('"min" or "max"')]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        """`X | None` is for keys that are not there; a key without a value is a slip."""
        if value is None:
            raise PydanticCustomError("problem", "has no value; give it one or take the key out")
        return value


class SshForm(_Strict):
    """How the launcher logs in. What is not said here is as ~/.ssh/config says."""

    host: Text | None = Field(None, description="what the launcher dials; else the node's addr")
    port: Port | None = Field(None, description="the SSH port")
    user: Word | None = Field(None, description="the user to log in as")
    identity: Text | None = Field(
        None, description="the private key's file, such as ~/.ssh/id_ed25519"
    )
    jump: Word | None = Field(None, description="a host to go through, or several with commas")
    host_key: HostKey | None = Field(None, description="the host key's fingerprint, pinned")
    accept_new: Flag | None = Field(
        None, description="record an unknown host key and go on; a changed one is never accepted"
    )


class DefaultsForm(_Strict):
    """What every node has where it does not say otherwise."""

    transport: Transport | None = Field(None, description='"local" for this machine (ssh)')
    user: Word | None = Field(None, description="short for ssh.user")
    slots: Slots | None = Field(None, description='workers on the node; "gpus" is one a GPU (1)')
    python: Python | None = Field(
        None, description="the workers' interpreter; \"auto\" is flowlaunch's own runtime (auto)"
    )
    workdir: Folder | None = Field(None, description="where runs work on the node (~/.flowlaunch)")
    env: dict[EnvName, EnvText] | None = Field(None, description="what the workers find set")
    ssh: SshForm | None = Field(None, description="how to log in")


class NodeForm(DefaultsForm):
    """A machine, or several where the name has ranges: gpu[01-16]."""

    name: Text = Field(description="the node's name, or several: gpu[01-16]")
    addr: Text | None = Field(
        None,
        description="what the other nodes dial, IPv4 or a host name, with ranges that run in step "
        "with the name's: 10.0.0.[1-16] (the name)",
    )


class BestForm(_Strict):
    """Keeps the best checkpoint too."""

    metric: Text = Field(description="a metric that the job reports, such as loss")
    mode: Mode = Field("min", description="which end of it is the best")


class CheckpointsForm(_Strict):
    """Which checkpoints are kept."""

    keep: Positive | None = Field(None, description="the newest so many (all)")
    keep_every: Positive | None = Field(None, description="also each whose step it divides")
    keep_best: BestForm | None = Field(None, description="also the best one")


class LogsForm(_Strict):
    """What a node keeps of the workers' output."""

    max_bytes: Positive | None = Field(None, description="at most so many bytes a stream (all)")


class ManifestForm(_Strict):
    """The machines of a cluster, for flowlaunch."""

    name: Text = Field("cluster", description="how the cluster is called")
    ctrl_port: AutoPort = Field("auto", description='rendezvous port; "auto" picks a free one')
    data_port: AutoPort = Field("auto", description="base of the workers' ports, for firewalls")
    defaults: DefaultsForm | None = Field(None, description="what every node has")
    nodes: list[NodeForm] = Field(min_length=1, description="the machines, in rank order")
    groups: dict[GroupName, Text] | None = Field(
        None, description="names for sets of nodes: fast: gpu[02-08]"
    )
    spares: Text | None = Field(
        None, description="those of the nodes that only replace one that drops out: gpu[15-16]"
    )
    env: dict[EnvName, EnvText] | None = Field(None, description="what all workers find set")
    checkpoints: CheckpointsForm | None = Field(None, description="which checkpoints are kept")
    logs: LogsForm | None = Field(None, description="what nodes keep of the workers' output")
    collect: list[CollectPattern] | None = Field(
        None, description="also bring home these paths of the worker's working directory"
    )


# Which keys stand where, by the key that holds them. Node and defaults differ by name and addr.
_FORMS: dict[str, type[BaseModel]] = {
    "": ManifestForm,
    "nodes": NodeForm,
    "defaults": DefaultsForm,
    "ssh": SshForm,
    "checkpoints": CheckpointsForm,
    "keep_best": BestForm,
    "logs": LogsForm,
}


def keys_under(holder: str) -> list[str]:
    """Returns the keys that may stand under `holder`, "" for the top of the manifest."""
    return list(_FORMS[holder].model_fields)


def holders_of(key: str) -> list[str]:
    """Returns under which keys `key` may stand, "" for the top of the manifest."""
    return [holder for holder in _FORMS if key in _FORMS[holder].model_fields]


def json_schema() -> str:
    """Returns the JSON Schema of a manifest, as editors read it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= ManifestForm.model_json_schema()
    return json.dumps(_without_null(schema), indent=2, ensure_ascii=False) + "\n"


def _without_null(schema: object) -> object:
    """Takes out what only pydantic means, titles and null, and closes what pydantic closes.

    A key that is not given is absent, never null.
    """
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    cleaned = {
        key: _without_null(value)
        for key, value in schema.items()
        if not (key == "default" and value is None)
        and not (key == "title" and isinstance(value, str))
    }
    if "patternProperties" in cleaned:
        cleaned["additionalProperties"] = False
    choices = cleaned.get("anyOf")
    if not isinstance(choices, list):
        return cleaned
    arms = [arm for arm in choices if arm != {"type": "null"}]
    if len(arms) == 1:
        del cleaned["anyOf"]
        return {**arms[0], **cleaned}
    return {**cleaned, "anyOf": arms}
