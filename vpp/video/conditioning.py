"""What the video UNet is told besides the noisy latents: the caption, the first frame and the time ids.

Source: arXiv 2412.14803 and its public code. CLIP's token sequence `[B, 20, 512]` stands twice on the channel axis and
takes the place of Stable Video Diffusion's image embedding in every cross-attention.
"""

from __future__ import annotations

import torch

from schemas.encoder import TEXT_TOKENS, TEXT_WIDTH


def text_position_table(length: int = TEXT_TOKENS, width: int = TEXT_WIDTH) -> torch.Tensor:
    """The fixed table that `svd-robot` adds to the token sequence: sines, then cosines; float32 `[length, width]`.

    >>> text_position_table().shape
    torch.Size([20, 512])
    """
    frequencies = 10_000 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def cross_attention_states(
    text: torch.Tensor,
    *,
    position_encode: bool = False,
    keep: torch.Tensor | None = None,
    image: torch.Tensor | None = None,
) -> torch.Tensor:
    """The sequence that every cross-attention reads, `[B, L, 2 * width]`.

    Args:
        text: CLIP's token sequence `[B, L, width]`.
        position_encode: Whether the position table is added to it.
        keep: Bool `[B]`; False zeroes the text (classifier-free guidance). The image is never zeroed.
        image: CLIP image embedding `[B, width]` of another camera, in the place of the second copy of the text.
    """
    if position_encode:
        text = text + text_position_table(text.shape[1], text.shape[2]).to(text)
    if keep is not None:
        text = torch.where(keep[:, None, None], text, 0.0)
    second = text if image is None else image[:, None, :].expand_as(text)
    return torch.cat([text, second], dim=-1)


def time_ids(fps: float, motion_bucket_id: float, noise_strength: torch.Tensor) -> torch.Tensor:
    """Added time ids `[B, 3]` of Stable Video Diffusion: frame rate, motion bucket, noise on the first frame `[B]`.

    >>> time_ids(7, 127, torch.zeros(1)).tolist()
    [[7.0, 127.0, 0.0]]
    """
    columns = (torch.full_like(noise_strength, fps), torch.full_like(noise_strength, motion_bucket_id), noise_strength)
    return torch.stack(columns, dim=1)  # filled where they lie: nothing is copied to the device
