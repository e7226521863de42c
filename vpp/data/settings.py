"""Which samples are drawn for training, in what order, and how far ahead they are read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingSettings:
    """What clips and windows share.

    Attributes:
        mixture: A published mixture (`vpp`, `oxe_magic_soup`) or `NAME=WEIGHT,...`; behind it `:fixed` (weights are
            probabilities, as where nothing is said) or `:weight_x_size`. Empty draws from all samples alike.
        selection: Name of a selection that `jobs/query.py --save` wrote; empty for all that is written.
        validation_fraction: Share of the source episodes held out of each dataset that has no validation split; 0
            trains on everything, also on the sources' validation splits.
        shuffle_pieces: Pieces whose samples are shuffled together: more mix better, fewer read nearer bytes.
        read_ahead: Samples on a worker that are read before they are needed; bounds the memory.
        num_threads: Threads on a worker that read and decode.
        retry_s: How long a store that does not answer is asked again.
    """

    mixture: str = ""
    selection: str = ""
    validation_fraction: float = 0.05
    shuffle_pieces: int = 64
    read_ahead: int = 64
    num_threads: int = 4
    retry_s: float = 120.0

    @property
    def piece_samples(self) -> int:
        """Adjacent samples of a shard that stay near each other in the order."""
        return 1

    def __post_init__(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction: expected 0 up to, without, 1, found {self.validation_fraction}")
        self._check_counts("shuffle_pieces", "read_ahead", "num_threads")
        if self.retry_s < 0:
            raise ValueError(f"retry_s: expected at least 0, found {self.retry_s}")

    def _check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class DataSettings(SamplingSettings):
    """Which clips are drawn for training, in what order, and how far ahead they are read.

    Attributes:
        cameras: Weights of cameras, `DATASET:CAMERA=WEIGHT,...;DATASET:...`; other datasets use all cameras alike.
        piece_clips: Adjacent clips of a shard that stay near each other in the order.
    """

    cameras: str = ""
    piece_clips: int = 16

    @property
    def piece_samples(self) -> int:
        """Adjacent clips of a shard that stay near each other in the order."""
        return self.piece_clips

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("piece_clips")


@dataclass(frozen=True)
class WindowSettings(SamplingSettings):
    """Which windows of episodes are drawn for training, what is read of them, and how far ahead.

    Only datasets that the mixture draws from need to have the cameras and the numbers in common.

    Attributes:
        num_actions: Actions of a window.
        cameras: The views, in this order; empty for all cameras of the data, which every episode then has to have.
        hop: Frames from one training window of an episode to the next; neighbours differ little, and small runs have
            no time for all.
        proprio: Whether the robot's own state is read.
        data_fraction: Share of the training episodes that is trained on, chosen by a hash: a larger share has those
            of a smaller one.
        piece_windows: Adjacent windows of an episode that stay near each other in the order.
    """

    num_actions: int = 10
    cameras: tuple[str, ...] = ()
    hop: int = 1
    proprio: bool = False
    data_fraction: float = 1.0
    piece_windows: int = 4
    shuffle_pieces: int = 1024

    @property
    def piece_samples(self) -> int:
        """Adjacent windows of an episode that stay near each other in the order."""
        return self.piece_windows

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("num_actions", "hop", "piece_windows")
        if not 0 < self.data_fraction <= 1:
            raise ValueError(f"data_fraction: expected above 0 up to 1, found {self.data_fraction}")
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras: expected each once, found {', '.join(self.cameras)}")
