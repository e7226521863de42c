"""Which clips are drawn for training, in what order, and how far ahead they are read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSettings:
    """Which clips are drawn for training, in what order, and how far ahead they are read.

    Attributes:
        mixture: A published mixture (`vpp`, `oxe_magic_soup`) or `NAME=WEIGHT,...`; behind it `:fixed` (weights are
            probabilities, as where nothing is said) or `:weight_x_size`. Empty draws from all clips alike.
        cameras: Weights of cameras, `DATASET:CAMERA=WEIGHT,...;DATASET:...`; other datasets use all cameras alike.
        selection: Name of a selection that `jobs/query.py --save` wrote; empty for all written clips.
        validation_fraction: Share of the source episodes held out of each dataset that has no validation split; 0
            trains on everything, also on the sources' validation splits.
        piece_clips: Adjacent clips of a shard that stay near each other in the order.
        shuffle_pieces: Pieces whose clips are shuffled together: more mix better, fewer read nearer bytes.
        read_ahead: Samples on a worker that are read before they are needed; bounds the memory.
        num_threads: Threads on a worker that read and decode.
        retry_s: How long a store that does not answer is asked again.
    """

    mixture: str = ""
    cameras: str = ""
    selection: str = ""
    validation_fraction: float = 0.05
    piece_clips: int = 16
    shuffle_pieces: int = 64
    read_ahead: int = 64
    num_threads: int = 4
    retry_s: float = 120.0

    def __post_init__(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction: expected 0 up to, without, 1, found {self.validation_fraction}")
        for name in ("piece_clips", "shuffle_pieces", "read_ahead", "num_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.retry_s < 0:
            raise ValueError(f"retry_s: expected at least 0, found {self.retry_s}")
