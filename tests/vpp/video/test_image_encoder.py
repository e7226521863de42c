"""CLIP's image encoder gives what transformers gives, from folders as on the hub, and a stand-in says that it is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from schemas.errors import UsageError
from vpp.video.image_encoder import image_encoder_id, load_image_encoder

VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 32,
}


def frames(count: int = 3) -> torch.Tensor:
    """Smooth pictures with an edge, uint8 `[count, 256, 256, 3]`: noise would hide how they are resized."""
    ramp = np.linspace(0, 255, 256)
    pictures = np.stack(
        [np.stack([np.roll(ramp[:, None] + 0 * ramp, 40 * n + c, 0) for c in range(3)], -1) for n in range(count)]
    )
    pictures[:, 100:, 50:90] = 255 - pictures[:, 100:, 50:90]
    return torch.from_numpy(pictures.astype(np.uint8))


def whole_clip(folder: Path, projection_dim: int = 512) -> None:
    """A folder with both of CLIP's encoders, as the hub has it."""
    text = CLIPTextConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=99
    )
    vision = CLIPVisionConfig(**VISION, projection_dim=projection_dim)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=projection_dim)
    ).save_pretrained(folder)


def vision_alone(folder: Path) -> None:
    CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=512)).save_pretrained(folder)


@pytest.mark.parametrize("write", [whole_clip, vision_alone])
def test_a_folder_gives_what_transformers_gives(write, tmp_path: Path) -> None:
    torch.manual_seed(1)
    write(tmp_path)
    encoder = load_image_encoder(str(tmp_path))
    assert (encoder.model_id, encoder.is_stand_in) == (str(tmp_path), False)
    model = CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
    pixels = CLIPImageProcessor()(images=list(frames().numpy()), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixel_values=pixels).image_embeds
    found = encoder.encode(frames())
    assert (found.shape, found.dtype) == ((3, 512), torch.float32)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_embedding_is_the_same_under_autocast_and_autograd_can_keep_it(tmp_path: Path) -> None:
    encoder = load_image_encoder("tiny")
    expected = encoder.encode(frames())
    weight = torch.ones(512, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder.encode(frames())
    assert torch.equal(found, expected)
    (found * weight).sum().backward()
    torch.testing.assert_close(weight.grad, expected.sum(0))


def test_the_stand_in_is_the_same_in_every_process_and_says_what_it_is() -> None:
    state = torch.random.get_rng_state()
    first, second = load_image_encoder("tiny"), load_image_encoder("tiny")
    assert torch.equal(torch.random.get_rng_state(), state)
    embeddings = first.encode(frames())
    assert torch.equal(embeddings, second.encode(frames()))
    assert not torch.equal(embeddings[0], embeddings[1])
    assert first.is_stand_in
    assert first.model_id == image_encoder_id("tiny") == "tiny (random CLIP, seed 0)"


def text_alone(folder: Path) -> None:
    CLIPTextModel(CLIPTextConfig(hidden_size=512, intermediate_size=32, num_hidden_layers=1)).save_pretrained(folder)


def wide(folder: Path) -> None:
    whole_clip(folder, projection_dim=768)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda folder: None, "expected a hub id, a local CLIP folder or tiny"),
        (text_alone, "expected the weights of CLIP's image encoder"),
        (wide, "expected embeddings of width 512 (CLIP ViT-B/32), found 768"),
    ],
)
def test_another_model_is_the_users_mistake_in_one_line(write, told: str, tmp_path: Path) -> None:
    write(tmp_path / "model")
    with pytest.raises(UsageError) as error:
        load_image_encoder(str(tmp_path / "model"))
    assert str(error.value).startswith(f"--image-encoder {tmp_path / 'model'}: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
