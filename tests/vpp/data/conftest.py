"""Small datasets that went through every step of preprocessing."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import write_vpp_layout
from preprocessing import preprocess_here

from pipelines.plan import ShardSettings
from pipelines.windows import WindowSettings


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of numbered frames."""
    root = tmp_path_factory.mktemp("preprocessed")
    source = write_vpp_layout(root / "source", num_episodes=4, num_frames=40)
    output = root / "out"
    preprocess_here(str(output), f"small=vpp-layout:{source}", "clips", ShardSettings(clips=5), WindowSettings(hop=12))
    return output
