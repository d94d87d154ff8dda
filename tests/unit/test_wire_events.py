"""The vocabulary: its exact bytes, its round trips, and what it refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.wire import codec, events

# As the shipped rooms write it for Python 3.7: not the type that `int | None` gives here.
OPTIONAL_INT: Any = events.WorkerExited.__annotations__["exit_code"]
GOLDEN = Path(__file__).parent / "golden" / "wire.txt"
_SAMPLES: dict[Any, object] = {
    int: 7,
    float: 1.5,
    str: "wörd",
    bool: True,
    bytes: b'{"a":1}\n\0\xff',
    OPTIONAL_INT: None,
}
_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=50),
    bool: st.booleans(),
    bytes: st.binary(max_size=100),
    OPTIONAL_INT: st.none() | st.integers(),
}
CLASSES = sorted(events.KINDS.values(), key=lambda cls: cls.__name__)


def sample(cls: Any) -> events.Message:
    message: events.Message = cls(*(_SAMPLES[kind] for kind in cls.__annotations__.values()))
    return message


def decode_one(data: bytes) -> events.Message:
    (frame,) = codec.Decoder().feed(data)
    return events.decode(frame)


def golden_text() -> str:
    lines = [f"version {events.VERSION}"]
    lines += [repr(events.encode(sample(cls)))[2:-1] for cls in CLASSES]
    return "\n".join(lines) + "\n"


def test_every_message_has_the_bytes_that_older_agents_know() -> None:
    """Rewrite the file with FLOWLAUNCH_REWRITE_GOLDEN=1 once VERSION says that they differ."""
    now = golden_text()
    if os.environ.get("FLOWLAUNCH_REWRITE_GOLDEN"):
        GOLDEN.write_text(now)
    then = GOLDEN.read_text()
    if now.splitlines()[0] == then.splitlines()[0]:
        assert now == then, (
            "the bytes of a message changed: launcher.wire.events.VERSION must change with them; "
            "then write the golden file anew with FLOWLAUNCH_REWRITE_GOLDEN=1"
        )
    assert now == then, "VERSION changed: write the golden file with FLOWLAUNCH_REWRITE_GOLDEN=1"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_every_message_comes_back_as_it_was(cls: Any, data: st.DataObject) -> None:
    message = cls(*(data.draw(_VALUES[kind]) for kind in cls.__annotations__.values()))
    back = decode_one(events.encode(message))
    assert type(back) is cls
    assert back == message


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_message_with_a_field_too_many_or_too_few_is_refused(cls: Any) -> None:
    fields = sample(cls)._asdict()
    payload: Any = fields.pop("data", b"")
    kind = events.kind_of(sample(cls))
    with pytest.raises(codec.WireError):
        events.decode(codec.Frame(kind, {**fields, "surplus": 1}, payload))
    for name in fields:
        rest = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(codec.WireError):
            events.decode(codec.Frame(kind, rest, payload))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_field_of_another_type_is_refused(cls: Any) -> None:
    fields = sample(cls)._asdict()
    payload: Any = fields.pop("data", b"")
    kind = events.kind_of(sample(cls))
    for name in fields:
        annotation = cls.__annotations__[name]
        wrong: list[object] = [[], {}, [1]]
        wrong += [] if annotation is bool else [True]
        wrong += [] if annotation is str else ["1"]
        wrong += [] if annotation in (int, float, OPTIONAL_INT) else [3]
        wrong += [] if annotation is float else [1.5]
        wrong += [] if annotation == OPTIONAL_INT else [None]
        for value in wrong:
            with pytest.raises(codec.WireError, match=f"{kind}: {name} cannot be"):
                events.decode(codec.Frame(kind, {**fields, name: value}, payload))


def test_an_unknown_message_is_refused_by_name() -> None:
    with pytest.raises(codec.WireError, match="unknown message 'make_tea'"):
        events.decode(codec.Frame("make_tea", {}, b""))


@pytest.mark.parametrize("field", ["_cls", "self", "cls", "__class__"])
def test_a_field_with_a_meaning_in_python_is_only_a_field_too_many(field: str) -> None:
    with pytest.raises(codec.WireError):
        events.decode(codec.Frame("end_run", {field: 1}, b""))


def test_a_header_cannot_stand_in_for_the_payload() -> None:
    frame = codec.Frame("file_chunk", {"request": 1, "offset": 0, "data": "text"}, b"bytes")
    assert events.decode(frame) == events.FileChunk(1, 0, b"bytes")


def test_commands_are_imperatives_and_events_are_past_or_answers() -> None:
    """The two unions and the table of kinds name the same classes."""
    known = {*get_args(events.Command), *get_args(events.Event)}
    assert known == set(events.KINDS.values())
    assert all(events.KINDS[kind].__name__ in events.__all__ for kind in events.KINDS)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", kind) for kind in events.KINDS)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"nothing"])
def test_a_payload_that_is_no_json_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(codec.WireError, match="payload is no JSON"):
        events.unpack_json(data)
