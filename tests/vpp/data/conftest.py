"""A small dataset that went through every step of preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import write_vpp_layout

from pipelines.decode import decode_shard
from pipelines.encode_video import VideoSettings
from pipelines.latents import add_latents
from pipelines.manifest_rows import Provenance
from pipelines.plan import ShardSettings, make_plan
from pipelines.plan_files import list_part, listing_url, load_shard, read_listing
from pipelines.shard_writer import write_shard
from pipelines.sources import open_source, parse_source
from pipelines.windows import WindowSettings


class MeanCodec:
    """Stands for the VAE: the mean colour of each block of 8x8 pixels, and their mean as the fourth channel."""

    model_id, is_stand_in, scaling_factor = "mean colour", True, 1.0

    def encode(self, frames: np.ndarray) -> np.ndarray:
        blocks = frames.reshape(len(frames), 32, 8, 32, 8, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
        return np.concatenate([blocks, blocks.mean(axis=1, keepdims=True)], axis=1).astype(np.float16)


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that went through every step of preprocessing, without Ray."""
    root = tmp_path_factory.mktemp("preprocessed")
    source_folder = write_vpp_layout(root / "source", num_episodes=4, num_frames=40)
    output, spec = str(root / "out"), parse_source(f"small=vpp-layout:{source_folder}")
    source = open_source(spec)
    urls = []
    for number, part in enumerate(source.parts()):
        urls.append(listing_url(output, "small", number))
        list_part(source, part, urls[-1])
    plan = make_plan(output, "small", read_listing(urls), WindowSettings(hop=12), ShardSettings(clips=5), ("clips",))
    provenance = Provenance("pyav", "libx264", "ones", True, MeanCodec.model_id, True)
    for number in range(plan.num_shards["clips"]):
        shard = load_shard(output, "small", "clips", number)
        samples = add_latents(decode_shard(shard, source, VideoSettings(), False), MeanCodec())
        captions = {sample.caption for _, planned in shard.items for sample in planned}
        text = {caption: np.full((20, 512), len(caption), np.float16) for caption in captions}
        write_shard(output, shard, samples, text, provenance)
    return Path(output)
