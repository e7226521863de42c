"""CLIP text and the VAE load from real folders, and a stand-in says that it is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from instant_clip_tokenizer import Tokenizer
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from schemas.encoder import same_model
from schemas.errors import UsageError
from vpp.video.frozen_models import latent_codec_factory, text_encoder_factory
from vpp.video.latent_codec import load_latent_codec
from vpp.video.text_encoder import load_text_encoder
from vpp.video.vae import codec_id

CAPTIONS = ["open the drawer", "a person picks up the mango from the table", "x " * 40, "Größe ✓"]


def test_the_stand_in_is_the_same_in_every_process_and_says_what_it_is() -> None:
    first, second = load_text_encoder("tiny"), load_text_encoder("tiny")
    embeddings = first.encode(CAPTIONS)
    assert (embeddings.shape, embeddings.dtype) == ((4, 20, 512), np.float16)
    np.testing.assert_array_equal(embeddings, second.encode(CAPTIONS))
    assert first.is_stand_in
    assert "random" in first.model_id
    assert not np.array_equal(embeddings[0], embeddings[1])


def write_clip_folder(folder: Path) -> CLIPTextModel:
    """A CLIP folder as on the hub: weights and the real vocabulary, in the files that transformers reads."""
    torch.manual_seed(1)
    config = CLIPTextConfig(hidden_size=512, intermediate_size=64, num_hidden_layers=1, num_attention_heads=8)
    model = CLIPTextModel(config).eval()
    model.save_pretrained(folder)
    vocabulary, merges = byte_pairs()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"} | special))
    return model


def byte_pairs() -> tuple[dict[str, int], list[str]]:
    """A vocabulary of single letters in CLIP's format; enough for the real tokenizer to run."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    vocabulary |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    return vocabulary, []


def test_a_local_clip_folder_gives_what_transformers_gives(tmp_path: Path) -> None:
    model = write_clip_folder(tmp_path)
    encoder = load_text_encoder(str(tmp_path))
    assert not encoder.is_stand_in
    vocabulary, _ = byte_pairs()
    ids = [49406, vocabulary["o"], vocabulary["k</w>"], 49407]
    tokens = torch.tensor([ids + [49407] * 16])
    mask = torch.tensor([[1] * 4 + [0] * 16])
    expected = model(input_ids=tokens, attention_mask=mask).last_hidden_state.detach().half().numpy()
    np.testing.assert_allclose(encoder.encode(["ok"]), expected, atol=2e-3)


def write_whole_clip_folder(folder: Path, projection_dim: int = 512) -> CLIPModel:
    """CLIP with both towers, as `openai/clip-vit-base-patch32` is published."""
    write_clip_folder(folder)
    text = {"hidden_size": 512, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 8}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    both = {"projection_dim": projection_dim}
    model = CLIPModel(CLIPConfig(text_config=text | both, vision_config=vision | both, **both)).eval()
    model.save_pretrained(folder)
    return model


def test_goals_are_clips_projected_text_embeddings_from_its_whole_context(tmp_path: Path) -> None:
    model = write_whole_clip_folder(tmp_path)
    encoder = load_text_encoder(str(tmp_path))
    text_alone = CLIPTextModelWithProjection.from_pretrained(tmp_path).eval()
    assert torch.equal(text_alone.text_projection.weight, model.text_projection.weight)
    letters, _ = byte_pairs()
    captions = ["ok", "o k " * 15, "ok " * 100]
    ids = torch.full((3, 77), 49407)
    for row, tokens in enumerate((["o", "k</w>"], ["o</w>", "k</w>"] * 15, ["o", "k</w>"] * 100)):
        kept = [49406, *(letters[token] for token in tokens[:75]), 49407]
        ids[row, : len(kept)] = torch.tensor(kept)
    with torch.inference_mode():
        expected = text_alone(input_ids=ids).text_embeds.numpy()
    goals = encoder.encode_goals(captions)
    assert (goals.shape, goals.dtype) == ((3, 512), np.float32)
    np.testing.assert_allclose(goals, expected, atol=1e-4)
    assert np.array_equal(encoder.encode(["o k " * 15]), encoder.encode(["o k " * 16]))  # which cuts at 20 tokens
    assert not np.allclose(goals[1], encoder.encode_goals(["o k " * 16])[0], atol=1e-4)


def test_goals_need_the_projection_of_a_whole_clip(tmp_path: Path) -> None:
    write_clip_folder(tmp_path)
    encoder = load_text_encoder(str(tmp_path))
    with pytest.raises(UsageError, match=r"expected text_projection .* use a whole CLIP model") as error:
        encoder.encode_goals(["ok"])
    assert str(tmp_path) in str(error.value)


def test_a_projection_to_another_width_is_refused(tmp_path: Path) -> None:
    write_whole_clip_folder(tmp_path, projection_dim=64)
    with pytest.raises(UsageError, match="expected text_projection to width 512"):
        load_text_encoder(str(tmp_path))


def test_the_stand_ins_goals_are_a_fixed_projection_and_tell_captions_apart() -> None:
    first, second = load_text_encoder("tiny"), load_text_encoder("tiny")
    goals = first.encode_goals(CAPTIONS)
    assert (goals.shape, goals.dtype) == ((4, 512), np.float32)
    np.testing.assert_array_equal(goals, second.encode_goals(CAPTIONS))
    assert not np.allclose(goals[0], goals[1], atol=0.1)
    assert float(goals.std()) == pytest.approx(1, rel=0.3)


def test_captions_are_cut_behind_a_kept_end_token() -> None:
    encoder = load_text_encoder("tiny")
    words = "open the drawer and then close it and open it again and close it and open it once more"
    assert len(Tokenizer().encode(words)) > 18
    np.testing.assert_array_equal(encoder.encode([words]), encoder.encode([words + " and more"]))


def test_a_vae_folder_gives_the_scaled_mode_of_the_posterior(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blocks = ("DownEncoderBlock2D",) * 4
    vae = AutoencoderKLTemporalDecoder(down_block_types=blocks, block_out_channels=(32,) * 4, layers_per_block=1).eval()
    vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    with torch.inference_mode():
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
        expected = vae.encode(pixels).latent_dist.mean * 0.18215
    for folder in (tmp_path, tmp_path / "vae"):
        codec = load_latent_codec(str(folder))
        assert codec.scaling_factor == pytest.approx(0.18215)
        assert not codec.is_stand_in
        np.testing.assert_allclose(codec.encode(frames), expected.numpy(), atol=2e-3)


def test_a_codecs_id_follows_its_encoder_and_scale_and_not_its_place(tmp_path: Path) -> None:
    codec = load_latent_codec("tiny")
    assert codec.is_stand_in
    assert codec.model_id.startswith("tiny (random VAE, seed 0)@")
    assert codec.model_id == load_latent_codec("tiny").model_id
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4, layers_per_block=1
    )
    vae.save_pretrained(tmp_path / "one")
    vae.save_pretrained(tmp_path / "two")
    one, two = (load_latent_codec(str(tmp_path / name)).model_id for name in ("one", "two"))
    assert one != two
    assert same_model(one, two)
    with torch.no_grad():
        vae.decoder.conv_in.weight.add_(1.0)
    assert codec_id(vae, str(tmp_path / "one")) == one
    vae.register_to_config(scaling_factor=0.5)
    assert not same_model(codec_id(vae, "one"), one)
    vae.register_to_config(scaling_factor=0.18215)
    with torch.no_grad():
        vae.quant_conv.bias.add_(1.0)
    assert not same_model(codec_id(vae, "one"), one)


@pytest.mark.parametrize("load", [load_text_encoder, load_latent_codec])
def test_an_unknown_model_is_the_users_mistake_in_one_line(load, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load(str(tmp_path / "no-model"))
    assert "no-model" in str(error.value)
    assert "\n" not in str(error.value)


def test_none_makes_no_model() -> None:
    assert text_encoder_factory("none") is None
    assert latent_codec_factory("none") is None
