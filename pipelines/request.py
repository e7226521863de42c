"""What is asked for: the settings of a run, and the request that decides what a dataset's files contain.

The request of a dataset is written before anything else of it; a run under the same output that asks for something
else is refused, because it would take the files of the first for its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipelines.encode_video import VideoSettings
from pipelines.plan import ShardSettings
from pipelines.plan_files import load_request
from pipelines.sources import SourceSpec, parse_source, window_settings
from pipelines.windows import WindowSettings
from schemas.errors import UsageError
from schemas.layout import manifest_folder, plan_folder, shard_folder
from schemas.shard import PRODUCTS
from schemas.storage import remove_partial_files


@dataclass(frozen=True)
class PreprocessSettings:
    """Turns videos into shards of clips and episodes with a manifest.

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Attributes:
        sources: `NAME=KIND:URL[#option=value&...]` each; kinds: openx-rlds, openx-lerobot, calvin, ego4d, vpp-layout.
        output: URL of the folder to write to. A run under the same output continues where the last one stopped.
        products: `clips` for the video model, `episodes` (every camera, actions, proprioception) for the policy.
        window: Which frames make a clip.
        shard: How much goes into a shard.
        video: How stored videos are encoded.
        text_encoder: CLIP's text encoder: hub id, local folder, `tiny` (a random stand-in), or `none`.
        latents: SVD VAE whose latents are stored too: `none`, hub id or local folder of an SVD pipeline, or `tiny`
            (a random stand-in).
        num_encoders: Actors that embed captions or encode latents; 0 for one per GPU, or one where there is none.
            Latents count GPUs of nodes that may still come, too.
        watchdog_minutes: Time without progress after which a warning says what is stuck; 0 never warns.
    """

    sources: tuple[str, ...] = ()
    output: str = ""
    products: tuple[Literal["clips", "episodes"], ...] = ("clips", "episodes")
    window: WindowSettings = field(default_factory=WindowSettings)
    shard: ShardSettings = field(default_factory=ShardSettings)
    video: VideoSettings = field(default_factory=VideoSettings)
    text_encoder: str = "openai/clip-vit-base-patch32"
    latents: str = "none"
    num_encoders: int = 0
    watchdog_minutes: float = 10.0


def parse_sources(settings: PreprocessSettings) -> list[SourceSpec]:
    """Reads the sources that are asked for.

    Raises:
        UsageError: If there is none, two have one name, or no product is wanted.
    """
    if not settings.sources:
        raise UsageError("--sources: expected at least one NAME=KIND:URL, found none")
    specs = [parse_source(text) for text in settings.sources]
    names = [spec.dataset for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"--sources: expected a different name for each source, found {', '.join(twice)} more than once"
        )
    if not settings.products:
        raise UsageError("--products: expected clips, episodes or both, found none")
    return specs


def request_of(spec: SourceSpec, settings: PreprocessSettings) -> dict[str, Any]:
    """Everything that decides what a dataset's files contain."""
    window = window_settings(spec, settings.window)
    request = {"source": asdict(spec), "window": asdict(window), "products": sorted(settings.products)}
    for name in ("shard", "video"):
        request[name] = asdict(getattr(settings, name))
    request |= {"text_encoder": settings.text_encoder, "latents": settings.latents}
    result: dict[str, Any] = json.loads(json.dumps(request))
    return result


def matching_parts(output: str, spec: SourceSpec, request: dict[str, Any]) -> list[str]:
    """The source's parts as they were when the dataset was begun under this output; empty if it was not.

    Raises:
        UsageError: If it was begun with another request: its files would be taken for those of this one.
    """
    found = load_request(output, spec.dataset)
    if found is None:
        return []
    earlier, parts = found
    changed = sorted(name for name in request | earlier if request.get(name) != earlier.get(name))
    if changed:
        was = {name: earlier.get(name) for name in changed}
        now = {name: request.get(name) for name in changed}
        raise UsageError(
            f"--output {output}: dataset {spec.dataset} was begun with other settings: {json.dumps(was)}, "
            f"now {json.dumps(now)}; take the earlier settings, another name for the source or another output"
        )
    return parts


def remove_left_overs(output: str, dataset: str) -> None:
    """Removes what killed writers of this dataset left; other datasets may be in the making."""
    remove_partial_files(plan_folder(output, dataset))
    for product in PRODUCTS:
        remove_partial_files(manifest_folder(output, product, dataset))
        remove_partial_files(shard_folder(output, product, dataset))
