"""The card of a video model's folder: what it was made from, what it was trained with, how it is used."""

from __future__ import annotations

from schemas.encoder import STAND_IN
from schemas.hub_card import NO_LICENCE, code, hub_card, table
from schemas.storage import exists
from vpp.video.svd import ModelDescription

_USE = """## Use

```bash
python jobs/predict.py --video-model this/folder --image desk.png --text "open the drawer" --output out/drawer
```

`diffusers.StableVideoDiffusionPipeline.from_pretrained` opens the folder too, but knows nothing of text, which takes
the place of the image embedding in every cross-attention; `vpp.json` tells the rest."""


def video_model_card(description: ModelDescription, base: str, num_weights: int, *blocks: str) -> str:
    """The text of a video model's `README.md`.

    Args:
        description: Its `vpp.json`.
        base: The model it was fine-tuned from: folder, URL or hub id; empty from scratch.
        num_weights: Of the UNet.
        blocks: Further Markdown, such as how it was trained.
    """
    front: dict[str, object] = {
        "library_name": "diffusers",
        "pipeline_tag": "image-to-video",
        "tags": ["robotics", "image-to-video", "video-prediction-policy"],
    }
    of_hub = base.count("/") == 1 and not exists(base)
    if of_hub:
        front["base_model"] = base
    told = base if of_hub else base.rstrip("/").rpartition("/")[2]  # a path says nothing elsewhere
    about = (
        "A text-guided video model for robots, the first stage of [Video Prediction "
        f"Policy](https://arxiv.org/abs/2412.14803): Stable Video Diffusion's UNet of {num_weights / 1e6:.1f} M "
        f"weights, {f'fine-tuned from {code(told)}' if base else 'trained from scratch'}, "
        f"{code(description.trained_by)}."
    )
    rows = [
        ("frames", f"{description.denoiser.num_frames} of {description.frame_size} x {description.frame_size}"),
        ("text encoder", _encoder(description.text_encoder)),
        ("latent codec", _encoder(description.latent_codec)),
    ]
    if description.image_encoder:
        rows.append(("image encoder, of another camera", _encoder(description.image_encoder)))
    return hub_card(front, "Text-guided video model", about, table(("", ""), rows), _USE, *blocks, NO_LICENCE)


def _encoder(name: str) -> str:
    is_stand_in = name == STAND_IN or name.startswith(f"{STAND_IN} (")
    return code(name) + (": random weights, a stand-in" if is_stand_in else "")
