"""Reading some of a model's weights by name, so that those which are not wanted never enter memory.

Format: safetensors, in one file or, as diffusers and transformers shard it, in several with a JSON index.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from schemas.plain_json import parse_json
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
        ValueError: If the index names files elsewhere, or is none.
        RuntimeError: If a weight is of another size.
    """
    suffix = "." + name if (name := variant(folder, subfolder or "").get("variant")) else ""
    at = Path(folder) / (subfolder or "")
    whole = at / f"{_NAME}{suffix}.safetensors"
    index = at / f"{_NAME}.safetensors.index{suffix}.json"
    wanted = set(model.state_dict())
    if index.is_file():
        files: Collection[str] = _files_of(parse_json(index.read_bytes()), wanted)
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


def _files_of(index: Any, wanted: Collection[str]) -> set[str]:
    """The files beside an index that hold the wanted weights."""
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        raise ValueError("expected a weight_map in the index of the weights, found none")
    files = {str(file) for name, file in places.items() if name in wanted}
    strange = [file for file in files if "/" in file or "\\" in file or "\0" in file]
    if strange:
        raise ValueError(f"expected files beside the index of the weights, found {strange[0]!r:.200}")
    return files
