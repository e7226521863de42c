"""What the UNet is told: caption, first frame's companions, time ids."""

from __future__ import annotations

import math

import pytest
import torch

from vpp.video.conditioning import cross_attention_states, text_position_table, time_ids

TEXT = torch.randn(3, 20, 512, generator=torch.Generator().manual_seed(0))
KEEP = torch.tensor([True, False, True])


def test_the_caption_stands_twice_on_the_channel_axis() -> None:
    states = cross_attention_states(TEXT)
    assert states.shape == (3, 20, 1024)
    assert torch.equal(states[..., :512], TEXT)
    assert torch.equal(states[..., 512:], TEXT)


def test_a_dropped_caption_is_zero_even_with_positions() -> None:
    states = cross_attention_states(TEXT, position_encode=True, keep=KEEP)
    assert (states[1] == 0).all()
    expected = TEXT[0] + text_position_table()
    torch.testing.assert_close(states[0, :, :512], expected)
    torch.testing.assert_close(states[0, :, 512:], expected)


def test_the_picture_of_another_camera_takes_the_second_half_and_is_never_dropped() -> None:
    image = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    states = cross_attention_states(TEXT, keep=KEEP, image=image)
    assert (states[1, :, :512] == 0).all()
    for row in range(3):
        for token in (0, 19):
            assert torch.equal(states[row, token, 512:], image[row])


def test_the_table_holds_sines_then_cosines_of_falling_frequency() -> None:
    table = text_position_table(20, 512)
    assert table[0].tolist() == [0.0] * 256 + [1.0] * 256
    for position, column in ((1, 0), (7, 100), (19, 255)):
        angle = position / 10_000 ** (column / 256)
        assert float(table[position, column]) == pytest.approx(math.sin(angle), abs=1e-6)
        assert float(table[position, 256 + column]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_time_ids_stand_in_diffusers_order() -> None:
    assert time_ids(7, 127, torch.tensor([0.0, 0.5])).tolist() == [[7, 127, 0], [7, 127, 0.5]]
