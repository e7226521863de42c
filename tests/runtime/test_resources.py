"""What never fits on a cluster's nodes is refused in one line; what may fit once nodes have come is not."""

from __future__ import annotations

import pytest

from runtime.resources import Cluster, Nodes, parse_node_types
from schemas.errors import UsageError

HEAD = Nodes({"node:__internal_head__": 1, "memory": 1e9})
CPU_NODE = Nodes({"CPU": 8})
TO_COME = parse_node_types('[{"CPU": 8, "max": 16}, {"CPU": 96, "GPU": 8, "max": 1}]')


@pytest.mark.parametrize(
    ("cluster", "bundle", "number"),
    [
        (Cluster(HEAD, (CPU_NODE, CPU_NODE)), {"CPU": 8}, 2),
        (Cluster(HEAD, (CPU_NODE, CPU_NODE)), {"CPU": 3}, 4),
        (Cluster(HEAD, (CPU_NODE,)), {"CPU": 0.333}, 24),
        (Cluster(HEAD, (), TO_COME), {"CPU": 8, "GPU": 1}, 8),
        (Cluster(HEAD, (CPU_NODE,), TO_COME), {"CPU": 8}, 28),  # the node that is there is one of the 16
        (Cluster(Nodes({"CPU": 2})), {"CPU": 1}, 2),
        (Cluster(HEAD, (Nodes({"GPU": 9}),), TO_COME), {"GPU": 1}, 9),  # more is there than was told
    ],
)
def test_what_just_fits_is_held_and_one_more_is_not(cluster: Cluster, bundle: dict[str, float], number: int) -> None:
    cluster.check_holds("workers", bundle, number, "")
    with pytest.raises(UsageError, match=f"found room for {number}"):
        cluster.check_holds("workers", bundle, number + 1, "")


def test_a_refusal_tells_what_was_asked_what_is_there_and_what_to_set() -> None:
    cluster = Cluster(HEAD, (CPU_NODE, CPU_NODE))
    with pytest.raises(UsageError) as refused:
        cluster.check_holds("training workers", {"CPU": 8, "GPU": 1}, 2, "set --workers.use-gpu False")
    assert str(refused.value) == (
        "training workers: expected a cluster that can hold 2 x 8 CPU and 1 GPU, each on one node, found room for 0: "
        "head with no CPU, 2 with 8 CPU; set --workers.use-gpu False; or where nodes come on demand, say which: "
        """VPP_NODE_TYPES='[{"CPU": 8, "max": 16}]'"""
    )


def test_where_it_is_told_which_nodes_come_a_refusal_names_them() -> None:
    with pytest.raises(UsageError) as refused:
        Cluster(HEAD, (), TO_COME).check_holds("tasks", {"GPU": 16}, 1, "set x")
    assert "at most 16 with 8 CPU, at most 1 with 96 CPU and 8 GPU; set x" in str(refused.value)
    assert "VPP_NODE_TYPES" not in str(refused.value)


def test_totals_are_of_what_may_be_there() -> None:
    empty = Cluster(HEAD, (), TO_COME)
    assert (empty.total("CPU"), empty.total("GPU")) == (16 * 8 + 96, 8)
    fixed = Cluster(Nodes({"CPU": 4}), (CPU_NODE,))
    assert (fixed.total("CPU"), fixed.total("GPU")) == (12, 0)


@pytest.mark.parametrize(("number", "share"), [(1, 8), (2, 8), (3, 4), (4, 4), (5, 2), (16, 1), (17, 1)])
def test_an_even_share_is_one_that_all_can_have(number: int, share: int) -> None:
    assert Cluster(HEAD, (CPU_NODE, CPU_NODE)).even_share("CPU", number) == share


def test_no_variable_is_no_node() -> None:
    assert parse_node_types("") == ()


@pytest.mark.parametrize("text", ["[", "8", '["CPU"]', '[{"CPU": 8}]', '[{"CPU": "many", "max": 1}]', '{"CPU": 8}'])
def test_a_variable_that_is_no_list_of_nodes_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="VPP_NODE_TYPES: expected a list such as"):
        parse_node_types(text)


def test_work_on_cpus_counts_no_node_with_gpus_unless_all_have_some() -> None:
    gpu_node = Nodes({"CPU": 96, "GPU": 8})
    assert Cluster(HEAD, (), TO_COME).plain_cpus() == 16 * 8
    assert Cluster(gpu_node, (CPU_NODE, gpu_node)).plain_cpus() == 8
    assert Cluster(gpu_node).plain_cpus() == 96
