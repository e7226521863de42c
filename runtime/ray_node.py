"""Ends a job whose own Ray node has died: all that it waits for would never come, and Ray itself lets it wait."""

from __future__ import annotations

import os
import sys
import threading
import time

import ray


def end_with_node(every_s: float = 5.0) -> None:
    """Watches the node of this process from now on, and ends the process with 1 and one line when it is dead.

    A node is dead when the cluster says so, some seconds after its raylet was. Nothing happens after `ray.shutdown()`.

    Args:
        every_s: How often it looks.
    """
    node_id = ray.get_runtime_context().get_node_id()
    threading.Thread(target=_watch, args=(node_id, every_s), name="ray-node", daemon=True).start()


def _watch(node_id: str, every_s: float) -> None:
    while ray.is_initialized() and ray.get_runtime_context().get_node_id() == node_id:
        if _is_dead(node_id):
            sys.stderr.write(
                "stopped: the Ray node of this job died; what is done is kept, the same command continues\n"
            )
            sys.stderr.flush()
            os._exit(1)  # the main thread waits inside Ray, where no exception reaches it
        time.sleep(every_s)


def _is_dead(node_id: str) -> bool:
    try:
        return any(node["NodeID"] == node_id and not node["Alive"] for node in ray.nodes())
    except Exception:  # Ray is just being shut down, or its head is gone, with which it ends this process itself
        return False
