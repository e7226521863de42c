"""Recomputation in the backward pass changes what is kept, not what comes out."""

from __future__ import annotations

import torch
from diffusers import UNetSpatioTemporalConditionModel

from vpp.video.recompute import recompute_in_backward, unet_units
from vpp.video.svd import unet_from_scratch


def kept_bytes_and_gradients(unet: UNetSpatioTemporalConditionModel) -> tuple[int, dict[str, torch.Tensor]]:
    """Bytes of what the forward pass keeps for the backward pass, weights left out; and the gradients."""
    kept: dict[int, int] = {}
    weights = {parameter.data_ptr() for parameter in unet.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 8, 16, 16, generator=generator)
    text = torch.randn(1, 20, 1024, generator=generator)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = unet(sample, torch.tensor(0.3), text, torch.tensor([[7.0, 127.0, 0.0]]), return_dict=False)[0]
    output.square().mean().backward()
    return sum(kept.values()), {name: parameter.grad for name, parameter in unet.named_parameters()}


def test_gradients_are_the_same_and_far_less_is_kept_than_diffusers_keeps() -> None:
    plain, of_diffusers, ours = (unet_from_scratch("tiny", num_frames=4).train() for _ in range(3))
    of_diffusers.enable_gradient_checkpointing()
    recompute_in_backward(ours)
    assert list(ours.state_dict()) == list(plain.state_dict())
    plain_bytes, expected = kept_bytes_and_gradients(plain)
    diffusers_bytes, _ = kept_bytes_and_gradients(of_diffusers)
    our_bytes, found = kept_bytes_and_gradients(ours)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0, msg=name)
    assert our_bytes < diffusers_bytes / 2 < plain_bytes / 2


def test_the_units_hold_nearly_all_of_the_model() -> None:
    unet = unet_from_scratch("tiny")
    held = sum(parameter.numel() for unit in unet_units(unet) for parameter in unit.parameters())
    assert held > 0.9 * sum(parameter.numel() for parameter in unet.parameters())
    assert unet_units(torch.nn.Linear(2, 2)) == []
