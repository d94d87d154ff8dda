"""What the plan means for each node."""

from __future__ import annotations

import dataclasses

from launcher.core.model import ON_NODE, ClusterSpec, JobSpec, NodeSpec, TransportKind
from launcher.core.orders import node_orders
from launcher.core.plan import make_plan
from launcher.wire.order import TreeFile, pack, unpack

NODES = (
    NodeSpec("here", "10.0.0.1", TransportKind.LOCAL, slots=2),
    NodeSpec("far", "10.0.0.2", TransportKind.SSH, slots=1, python="/opt/python"),
)
JOB = JobSpec("lenet", "lenet.py", args=("--x", "a b"), workdir="sub")
FILES = (TreeFile("lenet.py", "ab" * 32, 3, 0o644),)
CLUSTER = ClusterSpec("lab", NODES, ctrl_port=12138)
PLAN = make_plan(CLUSTER, JOB, slots={"here": 2, "far": 1}, env={"TOKEN": "secret"})
ORDERS = node_orders(PLAN, run_id="r-1", files=FILES, tree="t")


def test_each_node_is_ordered_its_own_workers() -> None:
    assert {name: [w.rank for w in order.workers] for name, order in ORDERS.items()} == {
        "here": [0, 1],
        "far": [2],
    }
    worker = ORDERS["far"].workers[0]
    assert worker.argv == ["script", "lenet.py", "--x", "a b"]
    assert worker.env["FLOWLAUNCH_RUN_ID"] == "r-1"
    assert worker.env["TOKEN"] == "secret"
    assert worker.env["RANK"] == "2"


def test_what_only_the_node_knows_is_not_ordered() -> None:
    loose = make_plan(
        dataclasses.replace(CLUSTER, ctrl_port=None), JOB, slots={"here": 1, "far": 1}, env={}
    )
    orders = node_orders(loose, run_id="r", files=FILES, tree="t")
    assert all(order.ctrl_port == 0 for order in orders.values())
    values = [value for order in orders.values() for w in order.workers for value in w.env.values()]
    assert ON_NODE not in values
    assert "MASTER_PORT" not in orders["far"].workers[0].env


def test_only_the_first_node_hosts_the_rendezvous() -> None:
    assert [order.hosts_rendezvous for order in ORDERS.values()] == [True, False]
    assert ORDERS["here"].ctrl_port == 12138


def test_only_this_machine_may_build_what_it_lacks() -> None:
    assert [order.build_runtime for order in ORDERS.values()] == [True, False]


def test_an_order_survives_its_way() -> None:
    for order in ORDERS.values():
        assert unpack(pack(order)) == order
        assert (order.tree, order.files, order.workdir) == ("t", list(FILES), "sub")
