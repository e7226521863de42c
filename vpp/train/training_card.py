"""What a model's card tells of its training: how long, on which samples, and the figures of the last validation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from schemas.hub_card import code, figure, table
from vpp.data.sample_index import SampleIndex
from vpp.train.engine import TrainSettings


def training_blocks(
    index: SampleIndex,
    train: np.ndarray,
    held_out: np.ndarray,
    samples: str,
    settings: TrainSettings,
    validation: Mapping[str, float],
) -> tuple[str, ...]:
    """Markdown for a card, the same whenever and however often the run was interrupted.

    Args:
        index: Tells the samples' datasets.
        train: Rows that were trained on.
        held_out: Rows that judged.
        samples: What a sample is, such as `clips`.
        settings: How long and how large.
        validation: The last one's metrics, as the last checkpoint holds them; empty without one.
    """
    trained, judged = (
        np.bincount(index.dataset_codes_of(rows), minlength=len(index.datasets)).tolist() for rows in (train, held_out)
    )
    rows = [
        (code(name), f"{count:,}", f"{aside:,}")
        for name, count, aside in zip(index.datasets, trained, judged, strict=True)
        if count or aside
    ]
    told = [
        f"## Training\n\n{settings.steps:,} steps of {settings.batch_size:,} {samples}, seed {settings.seed}, "
        f"{settings.precision}; the weights are the average of decay {settings.ema_decay:g}.",
        table(("dataset", f"{samples} trained on", "held out"), rows),
    ]
    figures = [
        (code(name), figure(value))
        for name, value in sorted(validation.items())
        if name.startswith("val/") and isinstance(value, int | float)
    ]
    if not figures:
        return (*told, "## Validation\n\nNone was made.")
    return (
        *told,
        f"## Validation\n\nAfter {settings.steps:,} steps, on {samples} held out.",
        table(("metric", "value"), figures),
    )
