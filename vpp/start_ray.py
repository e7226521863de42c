"""Starts or joins Ray, for the parts of this package that spread their work."""

from __future__ import annotations

import logging
import os

import ray

from schemas.ray_node import end_with_node


def start_ray(log_to_driver: bool = False) -> None:
    """Joins the cluster that RAY_ADDRESS names (a submitted job has it), or starts Ray on this machine.

    Args:
        log_to_driver: Whether what workers log is shown.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    options = {"include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=log_to_driver, logging_level=logging.ERROR, **options)
    end_with_node()
