"""Whatever the text, it is a cluster or a list of located problems."""

from __future__ import annotations

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.core.manifest import parse_manifest
from launcher.core.manifest_schema import holders_of, keys_under
from launcher.core.model import ClusterSpec
from launcher.errors import ManifestError

SOURCE = "cluster.yaml"
_HOLDERS = ["", "nodes", "defaults", "ssh", "checkpoints", "keep_best", "logs"]
_KEYS = sorted({key for holder in _HOLDERS for key in keys_under(holder)})


def outcome(text: str) -> ClusterSpec | ManifestError:
    try:
        return parse_manifest(text, SOURCE)
    except ManifestError as error:
        assert error.problems
        for line in error.problems:
            assert line.startswith(f"{SOURCE}:")
            assert len(line.splitlines()) == 1
        return error


_YAML_BITS = st.sampled_from(
    ["nodes:", "- ", "{", "}", "[", "]", "name", ": ", "\n", "  ", "a", "@", "*x", "&x ", "!t ",
     "'", '"', "#", "|\n", ">", "\t", "1", "1.5", "gpu[1-3]", "slots", "null", "---\n",
     "? ", "<<", "\\"]
)  # fmt: skip


@given(st.text() | st.text(alphabet=st.characters(codec=None)) | st.lists(_YAML_BITS).map("".join))
@settings(max_examples=200)
def test_any_text(text: str) -> None:
    outcome(text)


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 70000)
    | st.floats()
    | st.sampled_from(
        ["", "a", "gpu[1-3]", "gpu[3-1]", "10.0.0.[1-3]", "10.0.0.1", "::1", "@g", "a,b!c", "auto",
         "gpus", "local", "ssh", "min", "~/x", "/x", "../x", "n[1-99999999]", "me@x", "x:1"]
    )
    | st.text(max_size=8)
)  # fmt: skip
_WORDS = st.sampled_from([*_KEYS, "password", "slot", "x y", "g"])
_ANY = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


def _optional(holder: str, needed: str) -> dict[str, st.SearchStrategy[object]]:
    return dict.fromkeys((key for key in keys_under(holder) if key != needed), _ANY)


_NODES = st.lists(
    st.fixed_dictionaries({"name": _SCALARS}, optional=_optional("nodes", "name")),
    max_size=4,
)
_MANIFESTS = st.fixed_dictionaries(
    {"nodes": _NODES | _ANY},
    optional=_optional("", "nodes") | {"other": _ANY},
)


@given(_MANIFESTS)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_any_document_of_our_own_words(document: dict[str, object]) -> None:
    outcome(yaml.safe_dump(document, allow_unicode=True))


_PORTS = st.integers(1, 65535) | st.just("auto")


@st.composite
def _good(draw: st.DrawFn) -> dict[str, object]:
    count = draw(st.integers(1, 40))
    node: dict[str, object] = {"name": f"gpu[1-{count}]", "addr": f"10.0.0.[1-{count}]"}
    optional = {
        "slots": st.integers(1, 1024) | st.just("gpus"),
        "python": st.sampled_from(["auto", "/usr/bin/python3", "~/py"]),
        "workdir": st.sampled_from(["/scratch", "~/runs"]),
        "env": st.dictionaries(st.sampled_from(["A", "_b", "C3"]), st.text(alphabet="a =\"'$é")),
    }
    node |= draw(st.fixed_dictionaries({}, optional=optional))
    return {"nodes": [node], "ctrl_port": draw(_PORTS)}


@given(_good())
def test_a_good_document_is_a_cluster_that_says_the_same(document: dict[str, object]) -> None:
    spec = outcome(yaml.safe_dump(document, allow_unicode=True))
    assert isinstance(spec, ClusterSpec)
    nodes = document["nodes"]
    assert isinstance(nodes, list)
    written: dict[str, object] = nodes[0]
    for node in spec.nodes:
        assert node.env == written.get("env", {})
        assert node.slots == (None if written.get("slots") == "gpus" else written.get("slots", 1))
    assert spec.ctrl_port == (None if document["ctrl_port"] == "auto" else document["ctrl_port"])


def test_every_key_has_a_place() -> None:
    assert all(holders_of(key) for key in _KEYS)
