"""How a training job ends: what it says, and its exit code."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vpp.train.engine import Outcome
from vpp.train.ray_train import TrainingFailed

_log = logging.getLogger(__name__)


def end_training(train: Callable[[], Outcome], num_steps: int, product: str) -> tuple[int, str]:
    """Trains and tells what came of it.

    Args:
        train: The training.
        num_steps: Steps that were asked for.
        product: What is there when all are done, such as `model: out/stage1/model`.

    Returns:
        The exit code (0 done, 1 failed, 130 stopped when asked to), and the line to end with.
    """
    try:
        outcome = train()
    except TrainingFailed as error:
        _log.error("stopped: %s", error)
        return 1, "failed: the last checkpoint is kept, the same command continues"
    if not outcome.is_finished:
        return 130, f"stopped at step {outcome.step} of {num_steps}: the same command continues"
    return 0, f"{product} after {outcome.step} steps"
