"""CLIP's image encoder, for video models that also see the scene from another camera (`use_img_cond`).

Source: arXiv 2412.14803 and its public code: the projected embedding of ViT-B/32, width 512. Frames are prepared as
CLIP was trained (Radford et al., arXiv 2103.00020): bicubic to 224x224, then CLIP's own mean and standard deviation.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from schemas.encoder import STAND_IN, TEXT_WIDTH
from schemas.errors import UsageError

PUBLISHED_IMAGE_ENCODER = "openai/clip-vit-base-patch32"
_STAND_IN_ID = "tiny (random CLIP, seed 0)"
_SEED = 0
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipImageEncoder:
    """Embeds frames; frozen.

    Args:
        model: CLIP's vision model, projected to 512.
        model_id: Name and revision.
        is_stand_in: True for random weights.
        device: Where it runs.
    """

    def __init__(
        self, model: CLIPVisionModelWithProjection, model_id: str, is_stand_in: bool, device: torch.device
    ) -> None:
        self.model_id = model_id
        self.is_stand_in = is_stand_in
        self._device = device
        self._size_px = int(model.config.image_size)
        self._model = model.eval().requires_grad_(False).to(device)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Embeddings (`image_embeds`) float32 `[N, 512]` on the encoder's device of RGB frames uint8 `[N, H, W, 3]`.

        Frames become squares without keeping their shape: clips are square.
        """
        pixels = clip_pixels(frames, self._size_px).to(self._device)
        # outside autocast, so that training in bfloat16 and prediction see the same embedding; not in inference mode,
        # whose tensors autograd cannot keep
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            embeddings: torch.Tensor = self._model(pixel_values=pixels).image_embeds
        return embeddings


def clip_pixels(frames: torch.Tensor, size_px: int) -> torch.Tensor:
    """What CLIP's image encoder reads, float32 `[N, 3, size_px, size_px]`, of RGB frames uint8 `[N, H, W, 3]`.

    >>> clip_pixels(torch.zeros(1, 256, 256, 3, dtype=torch.uint8), 224)[0, :, 0, 0].tolist()
    [-1.7922625..., -1.7520971..., -1.4802198...]
    """
    shape = (size_px, size_px)
    resized = np.stack(
        [np.asarray(Image.fromarray(frame).resize(shape, Image.Resampling.BICUBIC)) for frame in frames.cpu().numpy()]
    )
    scaled = torch.from_numpy(resized).float() / 255
    return ((scaled - torch.tensor(_MEAN)) / torch.tensor(_STD)).permute(0, 3, 1, 2).contiguous()


def load_image_encoder(name: str, device: torch.device | None = None) -> ClipImageEncoder:
    """Loads CLIP's image encoder.

    Args:
        name: A Hugging Face hub id, a local folder in the same layout, or `tiny`: one random layer with a fixed seed; a
            stand-in for machines without weights.
        device: Where it runs; the CPU by default.

    Raises:
        UsageError: If there is no such model, it lacks weights, or its embeddings are not 512 wide.
    """
    device = device or torch.device("cpu")
    model_id = image_encoder_id(name)
    if name == STAND_IN:
        return ClipImageEncoder(_stand_in_model(), model_id, is_stand_in=True, device=device)
    try:
        model, report = CLIPVisionModelWithProjection.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _unknown(name, error) from error
    drawn = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if drawn:  # as in a folder of the text encoder alone: transformers draws such weights at random
        raise UsageError(
            f"--image-encoder {name}: expected the weights of CLIP's image encoder, found none for {len(drawn)} "
            f"parameters such as {min(drawn)}"
        )
    return ClipImageEncoder(model, model_id, is_stand_in=False, device=device)


def image_encoder_id(name: str) -> str:
    """Name and revision of an image encoder, without reading its weights.

    Args:
        name: As for `load_image_encoder`.

    Raises:
        UsageError: If there is no such model, or its embeddings are not 512 wide.
    """
    if name == STAND_IN:
        return _STAND_IN_ID
    try:
        config = CLIPVisionConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _unknown(name, error) from error
    if config.projection_dim != TEXT_WIDTH:
        raise UsageError(
            f"--image-encoder {name}: expected embeddings of width {TEXT_WIDTH} (CLIP ViT-B/32), found "
            f"{config.projection_dim}"
        )
    revision = getattr(config, "_commit_hash", None)
    return f"{name}@{revision[:12]}" if revision else name


def _unknown(name: str, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UsageError(f"--image-encoder {name}: expected a hub id, a local CLIP folder or {STAND_IN}: {reason}")


def _stand_in_model() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, projection_dim=TEXT_WIDTH,
        image_size=224, patch_size=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return CLIPVisionModelWithProjection(config)
