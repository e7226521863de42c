"""What the graph's tasks and actors do, as plain functions and classes that run without Ray.

A row names its work: a part of a source, a batch of captions, a planned shard. Each asks a store that is gone or ails
again for a while, and may be done twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipelines.decode import Sample, decode_shard
from pipelines.latents import add_latents
from pipelines.manifest_rows import Provenance
from pipelines.plan_files import list_part, load_shard
from pipelines.request import PreprocessSettings
from pipelines.shard_writer import write_shard
from pipelines.sources import SourceSpec, open_source
from pipelines.sources.source import Source
from pipelines.text import encode_captions, read_embeddings
from schemas.clip import PlannedShard
from schemas.encoder import LatentCodecFactory, TextEncoderFactory
from schemas.storage import exists
from schemas.store_faults import retry_passing_faults

RETRY_S = 120.0
"""How long a task asks a store again that is gone or ails. Ray Data's own retries know errors by their words alone, and
s3fs says "[Errno 121] We encountered an internal error" for what S3 calls InternalError."""


@dataclass(frozen=True)
class Job:
    """Plain values that go to every task."""

    specs: dict[str, SourceSpec]
    settings: PreprocessSettings
    provenance: Provenance
    take_over_any_latents: bool

    @property
    def output(self) -> str:
        """Folder or URL that all is written to."""
        return self.settings.output


@lru_cache(maxsize=4)  # a worker does many tasks, and a source keeps its indices
def _opened(spec: SourceSpec) -> Source:
    return open_source(spec)


def list_task(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    """Lists the episodes of a part of a source into a file."""

    def list_it() -> int:
        return list_part(_opened(job.specs[row["dataset"]]), row["part"], row["url"])

    return {"num_rows": retry_passing_faults(list_it, f"listing {row['part']}", RETRY_S)}


def make_task(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    """Decodes and writes a planned shard."""
    return write_task(job, decode_task(job, row))


def decode_task(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    """Reads the plan of a shard and decodes what it holds."""
    doing = f"decoding shard {row['number']} of {row['dataset']}"
    return retry_passing_faults(lambda: _decode(job, row), doing, RETRY_S)


def _decode(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    shard = load_shard(job.output, row["dataset"], row["product"], int(row["number"]))
    spec = job.specs[shard.dataset]
    if not exists(spec.url):  # a lost mount or bucket would make every file of it look missing
        raise ConnectionError(f"{spec.url} cannot be reached from this worker")
    started = time.monotonic()
    take_over = job.take_over_any_latents or not job.provenance.latent_codec_is_stand_in
    samples = decode_shard(shard, _opened(spec), job.settings.video, take_over)
    return {"shard": shard, "samples": samples, "seconds": time.monotonic() - started}


def write_task(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    """Writes a decoded shard and its manifest part; returns what is in it and the seconds that it took."""
    doing = f"writing shard {row['shard'].name} of {row['shard'].dataset}"
    return retry_passing_faults(lambda: _write(job, row), doing, RETRY_S)


def _write(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    shard: PlannedShard = row["shard"]
    samples: list[Sample] = row["samples"]
    started = time.monotonic()
    text = {}
    if job.provenance.text_encoder:
        text = read_embeddings(job.output, shard.dataset, (sample for _, planned in shard.items for sample in planned))
    counts = write_shard(job.output, shard, samples, text, job.provenance)
    seconds = float(row["seconds"]) + time.monotonic() - started
    return {"dataset": shard.dataset, "product": shard.product, "name": shard.name, "seconds": seconds, **counts}


class TextActor:
    """Holds a text encoder and embeds files of captions."""

    def __init__(self, output: str, factory: TextEncoderFactory) -> None:
        self._output, self._encoder = output, factory()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Embeds one file."""

        def encode() -> int:
            return encode_captions(self._output, row["dataset"], int(row["number"]), self._encoder)

        doing = f"embedding captions {row['number']} of {row['dataset']}"
        return {"num_captions": retry_passing_faults(encode, doing, RETRY_S)}


class LatentActor:
    """Holds a latent codec and adds latents to decoded shards."""

    def __init__(self, factory: LatentCodecFactory) -> None:
        self._codec = factory()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Encodes one shard."""
        started = time.monotonic()
        samples = add_latents(row["samples"], self._codec)
        return {"shard": row["shard"], "samples": samples, "seconds": row["seconds"] + time.monotonic() - started}
