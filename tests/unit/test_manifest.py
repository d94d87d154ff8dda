"""What a good manifest comes to."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from launcher.core.manifest import parse_manifest, select_nodes
from launcher.core.model import (
    BestPolicy,
    CheckpointPolicy,
    ClusterSpec,
    Extreme,
    LogPolicy,
    TransportKind,
)
from launcher.errors import ManifestError, UsageError
from launcher.store.manifest_file import read_manifest

ROOT = Path(__file__).parents[2]
HOST_KEY = "SHA256:" + "k" * 43

LAB = f"""
name: lab
ctrl_port: 12138
data_port: auto
defaults:
  user: train
  slots: 2
  python: auto
nodes:
  - {{name: this, transport: local}}
  - {{name: gpu1, addr: 192.168.1.15}}
  - {{name: "gpu[02-16]", addr: "10.0.0.[2-16]", slots: gpus}}
  - name: far
    addr: 10.9.0.7
    ssh: {{host: far.example.org, port: 2222, identity: ~/.ssh/id_ed25519, jump: bastion,
          host_key: "{HOST_KEY}"}}
groups: {{fast: "gpu[02-08]", both: "@fast,far"}}
env: {{OMP_NUM_THREADS: "1"}}
checkpoints: {{keep: 3}}
"""


def parse(text: str) -> ClusterSpec:
    return parse_manifest(textwrap.dedent(text), "cluster.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse(text)
    return caught.value.problems


@pytest.fixture(scope="module")
def lab() -> ClusterSpec:
    return parse(LAB)


def test_names_and_addresses_run_in_step_in_the_order_written(lab: ClusterSpec) -> None:
    assert [(node.name, node.addr) for node in lab.nodes] == [
        ("this", ""),
        ("gpu1", "192.168.1.15"),
        *((f"gpu{number:02}", f"10.0.0.{number}") for number in range(2, 17)),
        ("far", "10.9.0.7"),
    ]


def test_an_order_that_does_not_rise_is_kept() -> None:
    spec = parse('nodes: [{name: "n[3,1-2]", addr: "10.0.0.[9,5,7]"}]')
    assert [(n.name, n.addr) for n in spec.nodes] == [
        ("n3", "10.0.0.9"),
        ("n1", "10.0.0.5"),
        ("n2", "10.0.0.7"),
    ]


def test_ports_and_slots(lab: ClusterSpec) -> None:
    assert (lab.ctrl_port, lab.data_port, lab.source) == (12138, None, "cluster.yaml")
    assert [node.slots for node in lab.nodes[:3]] == [2, 2, None]


def test_the_far_node_has_its_own_login_and_the_common_user(lab: ClusterSpec) -> None:
    ssh = lab.nodes[-1].ssh
    assert ssh is not None
    assert (ssh.host, ssh.port, ssh.user) == ("far.example.org", 2222, "train")
    assert (ssh.identity, ssh.jump) == ("~/.ssh/id_ed25519", "bastion")
    assert (ssh.host_key, ssh.accept_new) == (HOST_KEY, False)


def test_a_local_node_has_no_login_whatever_the_defaults_say(lab: ClusterSpec) -> None:
    assert lab.nodes[0].transport is TransportKind.LOCAL
    assert lab.nodes[0].ssh is None


def test_the_launcher_dials_the_address_where_nothing_else_is_said(lab: ClusterSpec) -> None:
    assert lab.nodes[2].ssh is not None
    assert lab.nodes[2].ssh.host == "10.0.0.2"


def test_groups_may_use_those_above_them(lab: ClusterSpec) -> None:
    assert lab.groups["fast"] == tuple(f"gpu{number:02}" for number in range(2, 9))
    assert lab.groups["both"] == (*lab.groups["fast"], "far")


def test_a_name_alone_is_its_own_address() -> None:
    (node,) = parse("nodes: [{name: gpu1.example.org}]").nodes
    assert (node.addr, node.slots, node.python, node.workdir) == (node.name, 1, "auto", None)
    assert parse("nodes: [{name: a}]").name == "cluster"


def test_ssh_hosts_run_in_step_too() -> None:
    spec = parse("""
        nodes:
          - {name: "n[1-2]", addr: "10.0.0.[1-2]", ssh: {host: "login[8-9].example.org"}}
          - {name: six, addr: 10.0.0.3, ssh: {host: "fd00::7"}}
    """)
    hosts = [node.ssh.host for node in spec.nodes if node.ssh]
    assert hosts == ["login8.example.org", "login9.example.org", "fd00::7"]


def test_defaults_lie_under_each_node_also_inside_env_and_ssh() -> None:
    spec = parse("""
        defaults:
          user: train
          slots: gpus
          python: /opt/py
          workdir: ~/runs
          env: {A: "1", B: "1"}
          ssh: {port: 2222, jump: gate, accept_new: true}
        nodes:
          - {name: plain}
          - {name: own, slots: 3, python: ~/py, env: {B: "2", C: "2"},
             ssh: {port: 22, user: me, accept_new: false}}
    """)
    plain, own = spec.nodes
    assert (plain.slots, plain.python, plain.workdir) == (None, "/opt/py", "~/runs")
    assert plain.env == {"A": "1", "B": "1"}
    assert own.env == {"A": "1", "B": "2", "C": "2"}
    assert (own.slots, own.python, own.workdir) == (3, "~/py", "~/runs")
    assert plain.ssh is not None
    assert own.ssh is not None
    assert (plain.ssh.user, plain.ssh.port, plain.ssh.accept_new) == ("train", 2222, True)
    assert (own.ssh.user, own.ssh.port, own.ssh.accept_new) == ("me", 22, False)
    assert own.ssh.jump == "gate"


def test_spares_are_apart_and_can_still_be_named() -> None:
    spec = parse('nodes: [{name: "n[1-4]"}]\nspares: n[3-4]\ngroups: {odd: "n1,n3"}\n')
    assert [node.name for node in spec.nodes] == ["n1", "n2"]
    assert [node.name for node in spec.spares] == ["n3", "n4"]
    assert [node.name for node in select_nodes(spec, "@odd")] == ["n1", "n3"]


def test_the_rest_of_the_policies() -> None:
    spec = parse("""
        nodes: [{name: a}]
        collect: [./checkpoints99, "out/*.csv"]
        logs: {max_bytes: 1000000}
        checkpoints: {keep: 3, keep_every: 1000, keep_best: {metric: accuracy, mode: max}}
    """)
    assert spec.collect == ("./checkpoints99", "out/*.csv")
    assert spec.logs == LogPolicy(max_bytes=1_000_000)
    best = BestPolicy("accuracy", Extreme.MAX)
    assert spec.checkpoints == CheckpointPolicy(keep=3, keep_every=1000, keep_best=best)


@pytest.mark.parametrize("word", ["on", "yes", "010", "22:22", "0x1f", "2026-01-01", "0o7"])
def test_words_are_text_as_yaml_1_2_has_it(word: str) -> None:
    assert parse(f"name: {word}\nnodes: [{{name: a}}]").name == word


def test_a_byte_order_mark_and_windows_lines_are_harmless() -> None:
    assert parse("\ufeffname: lab\r\nnodes:\r\n  - name: a\r\n").name == "lab"


def test_columns_count_characters_not_bytes() -> None:
    (problem,) = problems("nodes: [{name: a, env: {Ä: é}}]\nname: ['ü']")[1:]
    assert problem.startswith("cluster.yaml:2:7 name: ")


def test_problems_come_in_the_order_of_the_file() -> None:
    found = problems("ctrl_port: x\nnodes: [{name: a, slots: 0}, {name: a}]\ndata_port: y")
    assert [line.split(":")[1] for line in found] == ["1", "2", "2", "3"]


def test_problems_without_end_are_counted_not_listed() -> None:
    found = problems("nodes:\n" + "  - {name: 1}\n" * 3000)
    assert len(found) == 1001
    assert found[-1] == "cluster.yaml: and 2000 more problems"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("gpu[02-04]", "gpu02 gpu03 gpu04"),
        ("far,gpu1", "gpu1 far"),
        ("gpu[02-16]!gpu[04-16]", "gpu02 gpu03"),
        ("@fast!gpu[04-08]", "gpu02 gpu03"),
        ("@fast&gpu[07-12]", "gpu07 gpu08"),
        ("@both!@fast", "far"),
        (" this , gpu1 ", "this gpu1"),
    ],
)
def test_a_set_selects_in_manifest_order(lab: ClusterSpec, expression: str, expected: str) -> None:
    assert [node.name for node in select_nodes(lab, expression)] == expected.split()


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("gpu[16-18]", "--nodes: no node is called 'gpu[17-18]'"),
        ("gpu[02-03]!gpu3", "--nodes: no node is called 'gpu3'"),
        ("@fist", "--nodes: unknown group '@fist'; did you mean '@fast'?"),
        ("gpu1!gpu1", "--nodes: 'gpu1!gpu1' leaves no node"),
        ("gpu1,", "--nodes: 'gpu1,' lacks a name beside an operator"),
        ("", "--nodes: '' lacks a name beside an operator"),
        (
            "gpu[1-",
            "--nodes: 'gpu[1-' has a bracket without its pair",
        ),
    ],
)
def test_a_set_that_cannot_be_is_a_usage_error(
    lab: ClusterSpec, expression: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        select_nodes(lab, expression)
    assert str(caught.value) == message
    assert caught.value.hint == ("the nodes are far,gpu[1,02-16],this; the groups are @fast, @both")


def test_ten_thousand_nodes_take_less_than_two_seconds() -> None:
    rows = (
        f"  - {{name: n{number:05}, addr: 10.1.{number >> 8}.{number & 255}, slots: 4}}\n"
        for number in range(10_000)
    )
    text = "nodes:\n" + "".join(rows)
    started = time.process_time()
    spec = parse_manifest(text, "cluster.yaml")
    assert time.process_time() - started < 2
    assert len(spec.nodes) == 10_000


def test_the_shipped_manifest_is_this_machine_alone_with_two_workers() -> None:
    spec = read_manifest(ROOT / "cluster.yaml")
    (node,) = spec.nodes
    assert (node.name, node.transport, node.slots) == ("this", TransportKind.LOCAL, 2)
    assert spec.ctrl_port is None


def test_the_examples_in_the_shipped_manifest_are_right_once_uncommented() -> None:
    lines = (ROOT / "cluster.yaml").read_text(encoding="utf-8").splitlines()
    examples = [line.replace("# ", "", 1) for line in lines if _is_example(line)]
    kept = [line for line in lines if not line.lstrip().startswith("#")]
    whole = "\n".join(_with_examples(kept, examples))
    spec = parse_manifest(whole, "cluster.yaml")
    assert len(spec.nodes) == 17
    assert [node.name for node in spec.spares] == ["gpu16"]


def _is_example(line: str) -> bool:
    bare = line.strip().removeprefix("# ")
    starts = ("- {", "- name", "  addr", "  ssh:", "groups:", "spares:", "checkpoints:")
    return line.strip().startswith("# ") and bare.startswith(starts)


def _with_examples(kept: list[str], examples: list[str]) -> list[str]:
    nodes = [line for line in examples if line.startswith(" ")]
    return kept + nodes + [line for line in examples if not line.startswith(" ")]


def test_nothing_heavy_is_imported_before_a_manifest_is_read() -> None:
    program = (
        "import sys, launcher.store.manifest_file, launcher.cli.schema\n"
        "print(sorted({'yaml', 'pydantic', 'ClusterShell'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
