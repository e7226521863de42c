"""Preprocesses a dataset in this process, step by step as jobs/preprocess.py does, without Ray."""

from __future__ import annotations

import numpy as np

from pipelines.decode import decode_shard
from pipelines.encode_video import VideoSettings
from pipelines.latents import add_latents
from pipelines.manifest_rows import Provenance
from pipelines.plan import ShardSettings, make_plan
from pipelines.plan_files import list_part, listing_url, load_shard, read_listing
from pipelines.shard_writer import write_shard
from pipelines.sources import open_source, parse_source
from pipelines.windows import WindowSettings
from schemas.shard import Product


class MeanCodec:
    """Stands for the VAE: the mean colour of each block of 8x8 pixels, and their mean as the fourth channel."""

    model_id, is_stand_in, scaling_factor = "mean colour", True, 1.0

    def encode(self, frames: np.ndarray) -> np.ndarray:
        blocks = frames.reshape(len(frames), 32, 8, 32, 8, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
        return np.concatenate([blocks, blocks.mean(axis=1, keepdims=True)], axis=1).astype(np.float16)


def preprocess_here(
    output: str,
    source_text: str,
    product: Product,
    shards: ShardSettings,
    windows: WindowSettings | None = None,
    with_latents: bool = True,
) -> None:
    """Writes the shards of one source, given as `NAME=KIND:URL`; a caption's tokens are its number of characters."""
    spec = parse_source(source_text)
    source = open_source(spec)
    urls = []
    for number, part in enumerate(source.parts()):
        urls.append(listing_url(output, spec.dataset, number))
        list_part(source, part, urls[-1])
    plan = make_plan(output, spec.dataset, read_listing(urls), windows or WindowSettings(), shards, (product,))
    provenance = Provenance("pyav", "libx264", "ones", True, MeanCodec.model_id if with_latents else "", with_latents)
    for number in range(plan.num_shards[product]):
        shard = load_shard(output, spec.dataset, product, number)
        samples = decode_shard(shard, source, VideoSettings(), False)
        if with_latents:
            samples = add_latents(samples, MeanCodec())
        captions = {sample.caption for _, planned in shard.items for sample in planned}
        text = {caption: np.full((20, 512), len(caption), np.float16) for caption in captions}
        write_shard(output, shard, samples, text, provenance)
