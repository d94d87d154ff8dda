"""The plan: ranks, environments and commands, decided before anything is done."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core.model import (
    ON_NODE,
    ClusterSpec,
    JobSpec,
    LaunchPlan,
    NodeSpec,
    SshSpec,
    TransportKind,
)
from launcher.core.plan import HIDDEN, make_plan, plan_to_json
from launcher.errors import UsageError

JOB = JobSpec("lenet", "jobs/lenet.py", args=("--epochs", "1"))


def cluster(*slots: int, **more: Any) -> ClusterSpec:
    nodes = tuple(
        NodeSpec(f"n{i}", f"10.0.0.{i + 1}", TransportKind.SSH, slots=count)
        for i, count in enumerate(slots)
    )
    return dataclasses.replace(ClusterSpec("lab", nodes), **more)


def plan(spec: ClusterSpec, **more: Any) -> LaunchPlan:
    slots = {node.name: node.slots or 1 for node in spec.nodes}
    return make_plan(spec, more.pop("job", JOB), slots=slots, env=more.pop("env", {}), **more)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_ranks_go_by_node_and_then_by_place_on_it(slots: list[int]) -> None:
    made = plan(cluster(*slots))
    assert [rank.rank for rank in made.ranks] == list(range(sum(slots)))
    assert made.world_size == sum(slots)
    assert made.uneven == (len(set(slots)) > 1)
    for number, count in enumerate(slots):
        own = made.ranks_of(f"n{number}")
        assert [rank.local_rank for rank in own] == list(range(count))
        assert {rank.node_rank for rank in own} == {number}
    for rank in made.ranks:
        assert rank.env["RANK"] == str(rank.rank)
        assert rank.env["WORLD_SIZE"] == str(sum(slots))
        assert rank.env["FLOWLAUNCH_LOCAL_RANK"] == str(rank.local_rank)
        assert rank.env["FLOWLAUNCH_NODE"] == rank.node
        assert rank.env["MASTER_ADDR"] == "10.0.0.1"


def test_a_worker_finds_what_the_contract_promises() -> None:
    env = plan(cluster(2, 2)).ranks[3].env
    assert (env["LOCAL_RANK"], env["FLOWLAUNCH_NODE_RANK"], env["FLOWLAUNCH_NNODES"]) == (
        "1",
        "1",
        "2",
    )
    assert json.loads(env["FLOWLAUNCH_MACHINES"]) == [{"addr": "10.0.0.1"}, {"addr": "10.0.0.2"}]
    assert env["MASTER_PORT"] == ON_NODE
    assert env["FLOWLAUNCH_ADDR"] == "10.0.0.2"
    assert "FLOWLAUNCH_NODE_SIZE" not in env
    assert "FLOWLAUNCH_DRY_RUN" not in env


def test_uneven_nodes_make_each_worker_a_machine_of_its_own() -> None:
    ranks = plan(cluster(2, 1)).ranks
    assert [rank.env["LOCAL_RANK"] for rank in ranks] == ["0", "0", "0"]
    assert {rank.env["FLOWLAUNCH_NODE_SIZE"] for rank in ranks} == {"3"}


def test_fixed_ports_are_given_to_each_worker_of_a_node() -> None:
    ranks = plan(cluster(2, 1, ctrl_port=12138, data_port=13000)).ranks
    assert {rank.env["MASTER_PORT"] for rank in ranks} == {"12138"}
    pairs = [
        (rank.node, rank.env["FLOWLAUNCH_DATA_PORT"], rank.env["FLOWLAUNCH_CONTROL_PORT"])
        for rank in ranks
    ]
    assert pairs == [("n0", "13000", "13001"), ("n0", "13002", "13003"), ("n1", "13000", "13001")]


def test_one_node_needs_no_address_of_its_own() -> None:
    assert "FLOWLAUNCH_ADDR" not in plan(cluster(2)).ranks[0].env


def test_the_command_line_wins_over_the_node_and_the_node_over_the_cluster() -> None:
    spec = cluster(1, env={"A": "cluster", "B": "cluster", "C": "cluster"})
    (node,) = spec.nodes
    spec = dataclasses.replace(
        spec, nodes=(dataclasses.replace(node, env={"B": "node", "C": "node"}),)
    )
    env = plan(spec, env={"C": "line", "RANK": "7", "WORLD_SIZE": "9"}).ranks[0].env
    assert [env[name] for name in ("A", "B", "C")] == ["cluster", "node", "line"]
    assert (env["RANK"], env["WORLD_SIZE"]) == ("0", "1"), "what we set is not for others to set"


@pytest.mark.parametrize(
    ("job", "argv"),
    [
        (JOB, ("script", "jobs/lenet.py", "--epochs", "1")),
        (JobSpec("m", "pkg.m", is_module=True), ("module", "pkg.m")),
    ],
)
def test_the_command(job: JobSpec, argv: tuple[str, ...]) -> None:
    assert plan(cluster(1), job=job).ranks[0].argv == argv


def test_a_dry_run_and_the_old_api_are_said_to_the_workers() -> None:
    env = plan(cluster(1), dry_run=True, legacy_placement="all").ranks[0].env
    assert (env["FLOWLAUNCH_DRY_RUN"], env["FLOWLAUNCH_LEGACY_PLACEMENT"]) == ("1", "all")


def test_no_node_is_no_plan() -> None:
    with pytest.raises(UsageError, match="no node is left"):
        plan(cluster())


def test_the_plan_as_json_hides_what_is_nobodys_business() -> None:
    spec = cluster(1, 1)
    login = SshSpec("n0.example.org", port=2222)
    nodes = (dataclasses.replace(spec.nodes[0], ssh=login, workdir="/w"), spec.nodes[1])
    made = plan(dataclasses.replace(spec, nodes=nodes), env={"TOKEN": "secret", "SEED": "3"})
    fields: Any = plan_to_json(made, hidden=("TOKEN",))
    text = json.dumps(fields)
    assert "secret" not in text
    assert fields["ranks"][0]["env"]["TOKEN"] == HIDDEN
    assert fields["ranks"][0]["env"]["SEED"] == "3"
    assert (fields["ctrl_port"], fields["data_port"], fields["world_size"]) == ("auto", "auto", 2)
    assert fields["machines"] == [{"addr": "10.0.0.1"}, {"addr": "10.0.0.2"}]
    assert fields["nodes"][0]["ssh"] == {"host": "n0.example.org", "port": 2222}
    assert fields["nodes"][0]["workdir"] == "/w"
    assert "ssh" not in fields["nodes"][1]


def test_a_plan_is_a_value() -> None:
    made = plan(cluster(2))
    with pytest.raises(TypeError):
        made.ranks[0].env["RANK"] = "9"  # type: ignore[index]
    assert made == plan(cluster(2))
