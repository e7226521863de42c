"""FVD: the Frechet distance against its definition, and how the user's network is called."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from i3d_stand_in import MeanColours
from scipy.linalg import sqrtm

from schemas.errors import UsageError
from vpp.video.fvd import frechet_distance, i3d_features, load_i3d


def by_definition(first: np.ndarray, second: np.ndarray) -> float:
    covariances = [np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    difference = first.mean(0) - second.mean(0)
    return float(difference @ difference + np.trace(covariances[0] + covariances[1] - 2 * root))


@pytest.mark.parametrize(("num_first", "num_second", "width"), [(50, 80, 6), (200, 30, 12), (40, 40, 1)])
def test_the_distance_is_the_definition(num_first: int, num_second: int, width: int) -> None:
    random = np.random.default_rng(width)
    first = random.normal(size=(num_first, width)) @ random.normal(size=(width, width))
    second = 0.3 + random.normal(size=(num_second, width)) @ random.normal(size=(width, width))
    found = frechet_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(by_definition(first, second), rel=1e-6)


def test_a_set_is_at_no_distance_from_itself_even_with_fewer_clips_than_features() -> None:
    features = torch.randn(10, 400, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-8)
    other = torch.randn(12, 400, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(features, other) == pytest.approx(frechet_distance(other, features))
    assert frechet_distance(features, other) > 0


def test_a_single_clip_has_no_distribution() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(5, 4))


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(MeanColours()).save(str(path))
    return path


def test_the_network_sees_pixels_in_channels_time_height_width(network: Path) -> None:
    frames = torch.zeros(5, 10, 8, 8, 3, dtype=torch.uint8)
    frames[..., 0] = 255
    frames[:, 5:, ..., 1] = 255
    features = i3d_features(load_i3d(str(network)), frames, batch_size=2)
    assert features.tolist() == [[1, -1, -1, 1, 1, -1]] * 5


def test_clips_that_are_too_short_for_the_network_are_refused(network: Path) -> None:
    with pytest.raises(ValueError, match="frames"):
        i3d_features(load_i3d(str(network)), torch.zeros(1, 4, 8, 8, 3, dtype=torch.uint8))


def test_a_file_that_is_missing_or_no_torchscript_is_the_users_mistake(tmp_path: Path) -> None:
    pickled = tmp_path / "pickled.pt"
    buffer = io.BytesIO()
    torch.save({"a": 1}, buffer)
    pickled.write_bytes(buffer.getvalue())
    (tmp_path / "text.pt").write_text("no network")
    for name in ("missing.pt", "pickled.pt", "text.pt"):
        with pytest.raises(UsageError, match="i3d_torchscript"):
            load_i3d(str(tmp_path / name))
