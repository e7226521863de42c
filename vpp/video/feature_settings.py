"""Which predictive features a policy reads: settings of `vpp.video.features`.

Source: arXiv 2412.14803, section 4.2 and its ablations, and its public code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FeatureSettings:
    """Which features a policy reads. The defaults are ours; `PUBLISHED` are those of the published policy.

    Raises:
        ValueError: If a value is outside its range.
    """

    encoder: Literal["video", "vae", "random"] = "video"
    """`video`: the video model. `vae`: its VAE alone, the first frame's latents. `random`: the video model's UNet with
    random weights. The paper ablates the latter two."""
    blocks: tuple[int, ...] = (0, 1)
    """Numbers of the up-blocks that are read, from 0. Published: 0 and 1."""
    aggregate: Literal["all", "last"] = "all"
    """`all`: outputs of all `blocks`, enlarged (nearest) to the largest and joined on the channel axis. `last`: that of
    the last one alone."""
    num_steps: int = 1
    """Forward passes: Euler steps from pure noise; features are those of the last pass. Published: 1; the paper
    ablates 2."""
    schedule_steps: int = 20
    """Steps of the whole schedule, of which `num_steps` are run: with as many, the whole video is predicted, as UniPi
    does. Published: 20."""
    sigma: float = 80.0
    """Noise level of the first step. Published: 700, which lies 3.7 standard deviations outside the training
    distribution."""
    fps: float | None = None
    """First time id; None: the one that the video model was trained with. Published: 4, and 7 in training."""
    seed: int | None = 0
    """Of the noise; each view has its own and keeps it. None: fresh noise at each call, as published."""
    future_frames: Literal["all", "one"] = "all"
    """`all`: features of all frames. `one`: of the last alone, a single future step as SuSIE has. Published: all."""

    frame_step: int = 1
    """Keep every so many-th frame, counted back from the last: fewer tokens for small machines. Published: 1."""

    def __post_init__(self) -> None:
        if self.frame_step < 1:
            raise ValueError(f"expected frame_step >= 1, found {self.frame_step}")
        if not self.blocks or min(self.blocks) < 0 or list(self.blocks) != sorted(set(self.blocks)):
            raise ValueError(f"expected blocks as rising numbers from 0, such as (0, 1), found {self.blocks}")
        if not 1 <= self.num_steps <= self.schedule_steps:
            raise ValueError(
                f"expected 1 <= num_steps <= schedule_steps, found {self.num_steps} and {self.schedule_steps}"
            )
        if self.sigma <= 0:
            raise ValueError(f"expected sigma > 0, found {self.sigma}")

    @property
    def last_block(self) -> int | None:
        """The last up-block that is run, which `load_denoiser` need read no further than; None: the whole UNet."""
        return max(self.blocks) if self.num_steps == 1 else None


PUBLISHED = FeatureSettings(sigma=700.0, fps=4.0, seed=None)
"""What the published policy (`dp-calvin`) was trained with."""
