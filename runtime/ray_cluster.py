"""Starts or joins Ray, and speaks with it for the parts of this project that spread their work."""

from __future__ import annotations

import logging
import os
from collections import Counter

import ray
import ray.util.metrics
from ray.autoscaler.v2.sdk import get_cluster_status

from runtime.metrics import Meter
from runtime.ray_node import end_with_node
from runtime.resources import NODE_TYPES_VARIABLE, SHOWN, Cluster, Nodes, describe, parse_node_types

_LOCAL = "local"


def _address() -> str:
    """Of the cluster to join, or `local` for a Ray of its own."""
    return os.environ.get("RAY_ADDRESS") or _LOCAL


def start_ray(log_to_driver: bool = False) -> None:
    """Joins the cluster that RAY_ADDRESS names (a submitted job has it), or starts Ray on this machine.

    Args:
        log_to_driver: Whether what workers log is shown.
    """
    if ray.is_initialized():
        return
    address = _address()
    options = {"include_dashboard": False} if address == _LOCAL else {}
    ray.init(address=address, log_to_driver=log_to_driver, logging_level=logging.ERROR, **options)
    end_with_node()


def ray_meter(run: str, **tags: str) -> Meter:
    """A meter that tells a run's metrics to Ray.

    Args:
        run: The job's output.
        **tags: Of all that is told.
    """
    return Meter(ray.util.metrics, run=run, **tags)


def describe_load() -> str:
    """What the cluster is asked for and cannot give now, and what of it is free, in one line."""
    if not ray.is_initialized():
        return "Ray is not started"
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    demands = status.resource_demands
    asked: Counter[str] = Counter()
    for demand in [*demands.ray_task_actor_demand, *demands.placement_group_demand]:
        for bundles in demand.bundles_by_count:
            asked[describe(bundles.bundle)] += bundles.count
    waiting = ", ".join(f"{count} x {bundle}" for bundle, count in sorted(asked.items()))
    usage = {each.resource_name: each for each in status.cluster_resource_usage}
    free = ", ".join(
        f"{usage[name].total - usage[name].used:g} of {usage[name].total:g} {name}" for name in SHOWN if name in usage
    )
    return f"asked for and not given: {waiting or 'nothing'}; free: {free or 'no CPU'}"


def find_cluster() -> Cluster:
    """What the cluster has, and what its files say that it may get.

    Raises:
        UsageError: If those are not as they should be.
    """
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    heads = [Nodes(resources) for resources in alive if "node:__internal_head__" in resources]
    workers = tuple(Nodes(resources) for resources in alive if "node:__internal_head__" not in resources)
    is_own = _address() == _LOCAL  # to a Ray of its own on this machine no node comes
    to_come = () if is_own else parse_node_types(os.environ.get(NODE_TYPES_VARIABLE, ""))
    return Cluster(heads[0] if heads else Nodes({}), workers, to_come)
