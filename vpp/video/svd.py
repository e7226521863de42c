"""Stable Video Diffusion's UNet: from scratch by preset, from a folder or hub id, and the folder that is written.

A folder is a diffusers `StableVideoDiffusionPipeline` (`model_index.json`, `unet/`, `vae/`, `scheduler/`, ...), as
Stability AI and the authors of VPP (`svd-robot`) publish it, so that diffusers opens it. Beside it `vpp.json` tells how
the UNet is called and which text encoder and latent codec it was trained with.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from runtime.settings import from_mapping, to_mapping
from schemas import storage
from schemas.encoder import TEXT_WIDTH
from schemas.errors import UsageError
from schemas.hub_card import CARD
from schemas.plain_json import parse_json
from schemas.shard import FRAME_SIZE_PX
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.model_folder import downloaded, first_line, local_copy, published, variant
from vpp.video.partial_weights import load_by_name

Preset = Literal["tiny", "small", "svd"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

DESCRIPTION = "vpp.json"
"""Name of our own file in a model's folder."""

_FEW_ATTENTIONS = {  # at 32x32 they take most of a CPU's time, and small models do without
    "down_block_types": (
        "DownBlockSpatioTemporal", "DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal",
        "DownBlockSpatioTemporal",
    ),
    "up_block_types": (
        "UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal", "UpBlockSpatioTemporal",
    ),
    "layers_per_block": 1,
}  # fmt: skip
_UNETS: dict[Preset, dict[str, Any]] = {
    "tiny": {
        "block_out_channels": (32, 64, 128, 128), "num_attention_heads": (1, 1, 2, 2), **_FEW_ATTENTIONS,
        "addition_time_embed_dim": 64, "projection_class_embeddings_input_dim": 192,
    },
    "small": {
        "block_out_channels": (64, 128, 256, 256), "num_attention_heads": (1, 2, 4, 4), **_FEW_ATTENTIONS,
        "addition_time_embed_dim": 64, "projection_class_embeddings_input_dim": 192,
    },
    "svd": {"block_out_channels": (320, 640, 1280, 1280), "num_attention_heads": (5, 10, 20, 20)},
}  # fmt: skip

_SCHEDULER = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "interpolation_type": "linear",
    "num_train_timesteps": 1000, "prediction_type": "v_prediction", "sigma_max": 700.0, "sigma_min": 0.002,
    "steps_offset": 1, "timestep_spacing": "leading", "timestep_type": "continuous", "use_karras_sigmas": True,
}  # fmt: skip


@dataclass(frozen=True)
class ModelDescription:
    """What is told about a model beside its weights.

    Raises:
        ValueError: If a value is outside its range.
    """

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    text_encoder: str = ""
    """Name and revision of the text encoder of its training data; empty where unknown."""
    latent_codec: str = ""
    """Name and revision of the latent codec of its training data; empty where unknown."""
    image_encoder: str = ""
    """Name and revision of the image encoder of its image condition; empty without one, and where unknown."""
    trained_by: str = ""
    """Step and commit of the run that wrote it; empty for a model of others."""
    frame_size: int = FRAME_SIZE_PX
    """Height and width in pixels of the frames it was trained on."""


def unet_from_scratch(preset: Preset, num_frames: int = 16, seed: int = 0) -> UNetSpatioTemporalConditionModel:
    """A randomly initialised UNet: `tiny` 11 M parameters, `small` 40 M, `svd` 1.5 B."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNetSpatioTemporalConditionModel(
            sample_size=32, num_frames=num_frames, cross_attention_dim=2 * TEXT_WIDTH, **_UNETS[preset]
        )


def cut_unet(unet: UNetSpatioTemporalConditionModel, last_block: int) -> UNetSpatioTemporalConditionModel:
    """A UNet of the same weights that ends after an up-block and returns its output; the given one stays as it is.

    Args:
        unet: The UNet.
        last_block: Number of the last up-block to keep, from 0.

    Raises:
        ValueError: If there is no such block.
    """
    if not 0 <= last_block < len(unet.up_blocks):
        raise ValueError(f"expected an up-block from 0 to {len(unet.up_blocks) - 1}, found {last_block}")
    unet = copy.copy(unet)
    unet._modules = dict(unet._modules)  # the copy shares modules, but not the list of them
    unet.up_blocks = unet.up_blocks[: last_block + 1]
    unet.conv_norm_out = unet.conv_act = unet.conv_out = nn.Identity()
    return unet


def load_denoiser(
    name: str, fallback: DenoiserConfig | None = None, *, last_block: int | None = None
) -> tuple[VideoDenoiser, ModelDescription]:
    """Loads the UNet, float32, and how it is called.

    Args:
        name: Folder, URL or hub id of a diffusers Stable Video Diffusion pipeline, with or without `vpp.json`.
        fallback: How a UNet without `vpp.json` is called; the published defaults otherwise.
        last_block: Number of the last up-block that is wanted, from 0: the UNet is cut behind it, and the weights of
            what is cut off are not read. It no longer denoises.

    Raises:
        UsageError: If there is no such model, it is incomplete or pickled, or its UNet is not one that text can guide.
        ValueError: If there is no such block.
    """
    with local_copy(name, "unet", DESCRIPTION) as folder:
        try:
            unet, missing = _whole_unet(folder) if last_block is None else _part_of_unet(folder, last_block)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UsageError(
                f"video model {name}: expected a diffusers Stable Video Diffusion folder with safetensors or a hub id: "
                f"{first_line(error)}"
            ) from error
        description = read_description(folder) or ModelDescription(denoiser=fallback or DenoiserConfig())
    found = (unet.config.in_channels, unet.config.out_channels, unet.config.cross_attention_dim)
    if found != (8, 4, 2 * TEXT_WIDTH):
        raise UsageError(
            f"video model {name}: expected 8 input and 4 output channels and cross-attention width {2 * TEXT_WIDTH}, "
            f"found {found}"
        )
    if missing:
        raise UsageError(
            f"video model {name}: expected the weights of the whole UNet, found none for {len(missing)} "
            f"parameters such as {min(missing)}; download it again"
        )
    return VideoDenoiser(unet, description.denoiser), description


def _whole_unet(folder: str) -> tuple[UNetSpatioTemporalConditionModel, set[str]]:
    """The UNet, and the names of weights that are missing."""
    unet, report = UNetSpatioTemporalConditionModel.from_pretrained(
        folder,
        subfolder="unet",
        torch_dtype=torch.float32,
        use_safetensors=True,  # the other format is a pickle, which can run code
        output_loading_info=True,
        **variant(folder),
    )
    return unet, set(report["missing_keys"])


def _part_of_unet(name: str, last_block: int) -> tuple[UNetSpatioTemporalConditionModel, set[str]]:
    folder = downloaded(name, "unet")
    config = UNetSpatioTemporalConditionModel.load_config(folder, subfolder="unet")
    with torch.device("meta"):
        unet = cut_unet(UNetSpatioTemporalConditionModel.from_config(config), last_block)
    return unet.eval(), load_by_name(unet, folder, "unet")


def read_description(name: str) -> ModelDescription | None:
    """What `vpp.json` in a model's folder or URL tells; None where there is none.

    Raises:
        UsageError: If it is not ours.
    """
    path = storage.join(name, DESCRIPTION) if storage.exists(name) else _hub_file(name)
    if not storage.exists(path):
        return None
    try:
        values = parse_json(storage.read_bytes(path))
    except ValueError as error:
        raise UsageError(f"{path}: expected JSON, found {error}; write the model again or remove the file") from error
    return from_mapping(ModelDescription, values, path)


def _hub_file(name: str) -> str:
    """Path of the downloaded `vpp.json` of a hub id; a path that is not there where the hub has none."""
    try:
        return hf_hub_download(name, DESCRIPTION)
    except (
        HfHubHTTPError,
        HFValidationError,
        OSError,
    ):  # loading the UNet tells what is wrong
        return storage.join(name, DESCRIPTION)


def save_pipeline(
    folder: str,
    unet: UNetSpatioTemporalConditionModel,
    vae: AutoencoderKLTemporalDecoder,
    description: ModelDescription,
    base: str = "",
    card: str = "",
) -> None:
    """Writes a diffusers `StableVideoDiffusionPipeline` folder with `vpp.json`; it is complete or absent.

    Args:
        folder: Path or URL. A model that is there already is replaced.
        unet: Its weights are written in their own type.
        vae: The latent codec of the training data.
        description: Goes into `vpp.json`.
        base: Folder, URL or hub id whose image encoder goes along. It is never used with text; where there is no base,
            a small random one stands in, because diffusers asks for one.
        card: Its `README.md`; empty for none.

    Raises:
        UsageError: If `base` has no image encoder.
    """
    image_encoder, feature_extractor = _image_encoder(base) if base else _unused_image_encoder()
    with published(folder) as staged:
        StableVideoDiffusionPipeline(
            vae=vae,
            image_encoder=image_encoder,
            unet=unet,
            scheduler=EulerDiscreteScheduler(**_SCHEDULER),
            feature_extractor=feature_extractor,
        ).save_pretrained(staged)
        (Path(staged) / DESCRIPTION).write_text(json.dumps(to_mapping(description), indent=1) + "\n")
        if card:
            (Path(staged) / CARD).write_text(card)


def _image_encoder(base: str) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
    with local_copy(base, "image_encoder", "feature_extractor") as folder:
        try:
            return (
                CLIPVisionModelWithProjection.from_pretrained(
                    folder, subfolder="image_encoder", use_safetensors=True, **variant(folder, "image_encoder")
                ),
                CLIPImageProcessor.from_pretrained(folder, subfolder="feature_extractor"),
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UsageError(
                f"image encoder of {base}: expected a diffusers SVD folder: {first_line(error)}"
            ) from error


def _unused_image_encoder() -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
                projection_dim=2 * TEXT_WIDTH, image_size=224, patch_size=32,
            )
        )  # fmt: skip
    return encoder, CLIPImageProcessor()
