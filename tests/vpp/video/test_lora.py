"""Adapters train alone, merge into a plain UNet, and survive a checkpoint."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from vpp.video.lora import add_lora, merge_lora
from vpp.video.svd import unet_from_scratch

GUIDE = {"added_time_ids": torch.tensor([[7.0, 127.0, 0.0]]), "return_dict": False}


def run(unet: UNetSpatioTemporalConditionModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 3, 8, 8, 8, generator=generator)
    text = torch.randn(1, 20, 1024, generator=generator)
    return unet(sample, torch.tensor(0.3), encoder_hidden_states=text, **GUIDE)[0]


def adapted(seed: int = 0, rank: int = 4, alpha: float = 8.0) -> UNetSpatioTemporalConditionModel:
    torch.manual_seed(seed)
    unet = unet_from_scratch("tiny")
    add_lora(unet, rank, alpha)
    return unet


def train(unet: UNetSpatioTemporalConditionModel, num_steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(num_steps):
        run(unet).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_new_adapters_do_not_change_the_output() -> None:
    torch.testing.assert_close(run(adapted()), run(unet_from_scratch("tiny")))


def test_only_the_adapters_of_all_attentions_get_gradients() -> None:
    unet = adapted()
    run(unet).square().mean().backward()
    with_gradient = {name for name, parameter in unet.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name in unet.state_dict() if ".lora_" in name}
    plain = unet_from_scratch("tiny").state_dict()
    projections = [name for name in plain if ".to_" in name and name.endswith(".weight")]
    assert len(with_gradient) == 2 * len(projections)
    assert any(".temporal_transformer_blocks." in name for name in with_gradient)
    assert any(".attn2." in name for name in with_gradient)


def test_a_merged_model_is_a_plain_one_with_the_same_output() -> None:
    unet = adapted()
    train(unet)
    merged, plain = merge_lora(unet), unet_from_scratch("tiny")
    assert list(merged.state_dict()) == list(plain.state_dict())
    assert {type(module) for module in merged.modules()} == {type(module) for module in plain.modules()}
    torch.testing.assert_close(run(merged), run(unet), rtol=1e-2, atol=1e-3)
    assert (run(merged) - run(plain)).abs().max() > 0.1


def test_merging_leaves_the_adapters_to_train_on() -> None:
    unet, uninterrupted = adapted(), adapted()
    train(unet)
    train(uninterrupted)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    merge_lora(unet)
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    train(unet)
    train(uninterrupted)
    torch.testing.assert_close(run(unet), run(uninterrupted), rtol=0, atol=0)


def test_a_merged_model_saves_and_loads_as_diffusers_does(tmp_path) -> None:
    unet = adapted()
    train(unet)
    merged = merge_lora(unet)
    merged.save_pretrained(tmp_path)
    loaded = UNetSpatioTemporalConditionModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in merged.state_dict().items())


def test_the_state_goes_into_another_model_with_adapters() -> None:
    unet, other = adapted(seed=0), adapted(seed=1)
    train(unet)
    other.load_state_dict(unet.state_dict())
    torch.testing.assert_close(run(other), run(unet), rtol=0, atol=0)
    weights = {name: tensor for name, tensor in unet.state_dict().items() if ".lora_" in name}
    third = adapted(seed=2)
    assert third.load_state_dict(weights, strict=False).unexpected_keys == []
    torch.testing.assert_close(run(third), run(unet), rtol=0, atol=0)


def test_gradient_checkpointing_reaches_adapters_too() -> None:
    plain, checkpointed = adapted(), adapted()
    checkpointed.enable_gradient_checkpointing()
    for unet in (plain, checkpointed):
        unet.train()
        run(unet).square().mean().backward()
    for (name, expected), (_, found) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        if expected.requires_grad:
            torch.testing.assert_close(found.grad, expected.grad, msg=name)


def test_wrong_use_is_told() -> None:
    with pytest.raises(ValueError, match="rank >= 1"):
        add_lora(unet_from_scratch("tiny"), rank=0)
    with pytest.raises(ValueError, match="merge them first"):
        add_lora(adapted())
