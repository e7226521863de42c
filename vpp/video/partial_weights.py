"""Reading some of a model's weights by name, so that those which are not wanted never enter memory.

Format: safetensors, in one file or, as diffusers and transformers shard it, in several with a JSON index.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from vpp.video.model_folder import variant

_NAME = "diffusion_pytorch_model"


def load_by_name(model: nn.Module, folder: str, subfolder: str | None) -> set[str]:
    """Loads all weights of a diffusers model, float32, from a folder that may hold more.

    Args:
        model: On the device `meta` until now; made without what is not wanted.
        folder: Of the pipeline, or of the model.
        subfolder: Of the model within it.

    Returns:
        Names of weights that the folder does not hold.

    Raises:
        OSError: If there is no such file, or it is not safetensors.
        RuntimeError: If a weight is of another size.
    """
    suffix = "." + name if (name := variant(folder, subfolder or "").get("variant")) else ""
    at = Path(folder) / (subfolder or "")
    whole = at / f"{_NAME}{suffix}.safetensors"
    index = at / f"{_NAME}.safetensors.index{suffix}.json"
    wanted = set(model.state_dict())
    if index.is_file():
        files: Collection[str] = {
            file for name, file in json.loads(index.read_text())["weight_map"].items() if name in wanted
        }
    else:
        files = {whole.name}
    weights: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(files):
            with safe_open(str(at / file), framework="pt") as opened:
                names = wanted.intersection(opened.keys())
                weights |= {name: opened.get_tensor(name).float() for name in sorted(names)}
    except SafetensorError as error:
        raise OSError(str(error)) from error
    model.load_state_dict(weights, strict=False, assign=True)
    return wanted - set(weights)
