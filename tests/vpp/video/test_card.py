"""A video model's card is one that the hub reads, and names what the model was made from."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from vpp.video.card import video_model_card
from vpp.video.svd import ModelDescription

DESCRIPTION = ModelDescription(text_encoder="tiny (random CLIP, seed 0)", latent_codec="vae@0123456789ab")


def test_the_hub_reads_it_and_finds_the_model_it_was_made_from() -> None:
    name = "stabilityai/stable-video-diffusion-img2vid"
    card = ModelCard(video_model_card(DESCRIPTION, name, 1_524_600_000))
    assert (card.data.library_name, card.data.base_model, card.data.license) == ("diffusers", name, None)
    assert f"1524.6 M weights, fine-tuned from `{name}`" in " ".join(card.text.split())


def test_a_folder_is_named_without_its_path(tmp_path: Path) -> None:
    card = video_model_card(DESCRIPTION, str(tmp_path), 1)
    assert "base_model" not in card
    assert f"fine-tuned from `{tmp_path.name}`" in card
    assert str(tmp_path) not in card
    assert "trained from scratch" in video_model_card(DESCRIPTION, "", 1)


def test_a_stand_in_is_said_to_be_one() -> None:
    card = video_model_card(DESCRIPTION, "", 1)
    assert "| text encoder | `tiny (random CLIP, seed 0)`: random weights, a stand-in |" in card
    assert "| latent codec | `vae@0123456789ab` |" in card
