"""The graph: plan -> caption embeddings -> decode -> latents -> shard and manifest part. The only file of the
package that knows Ray.

One row is one unit of work whose result is a file: a part of a source, a batch of captions, a planned shard. A unit
whose file exists is not done again, so a run that was killed continues; a unit that is done twice writes the same
bytes. Rows carry names and encoded videos, never decoded frames.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import ray
import ray.data

from pipelines.ledger import is_done, pending_shards
from pipelines.manifest_rows import Provenance
from pipelines.plan import make_plan
from pipelines.plan_files import (
    CAPTIONS_PER_FILE,
    PlanSummary,
    listing_url,
    load_plan,
    read_listing,
    write_request,
)
from pipelines.request import PreprocessSettings, matching_parts, parse_sources, remove_left_overs, request_of
from pipelines.sources import SourceSpec, open_source, window_settings
from pipelines.summary import STATUSES, summarise
from pipelines.tasks import RETRY_S, Job, LatentActor, TextActor, decode_task, list_task, make_task, write_task
from pipelines.text import text_url
from pipelines.video_file import DECODER
from runtime.ray_cluster import describe_load, find_cluster, ray_meter, start_ray
from runtime.stage import stage
from runtime.watchdog import Watchdog
from schemas.encoder import LatentCodecFactory, TextEncoderFactory
from schemas.errors import UsageError
from schemas.layout import plan_folder
from schemas.storage import check_writable, join, list_names
from schemas.store_faults import retry_passing_faults

_T = TypeVar("_T")
_ROWS_AT_ONCE = 10_000  # bounds what the driver hands to Ray at a time

_TASK: dict[str, Any] = {"num_cpus": 1, "max_retries": 3}
"""Ray Data would start a task that kills its worker again and again, for ever."""


def preprocess(
    settings: PreprocessSettings, text_encoder: TextEncoderFactory | None, latent_codec: LatentCodecFactory | None
) -> dict[str, Any]:
    """Runs the whole job and returns the summary that it writes to `<output>/summary.json`.

    Args:
        settings: What to do.
        text_encoder: Makes the text encoder in a worker; None stores no embeddings.
        latent_codec: Makes the latent codec in a worker; None computes no latents.

    Raises:
        UsageError: If a setting, a source or the output is wrong.
        RuntimeError: If the counts do not add up.
        ray.exceptions.RayError: If a task failed for another reason than its data; running again continues.
    """
    watchdog = Watchdog(settings.watchdog_minutes, describe_load)
    with watchdog.watching():
        return _preprocess(settings, text_encoder, latent_codec, watchdog)


def _preprocess(
    settings: PreprocessSettings,
    text_encoder: TextEncoderFactory | None,
    latent_codec: LatentCodecFactory | None,
    watchdog: Watchdog,
) -> dict[str, Any]:
    started = time.monotonic()
    specs = parse_sources(settings)
    watchdog.progress("look at sources and output")
    requests = {spec.dataset: request_of(spec, settings) for spec in specs}
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    parts = {spec.dataset: matching_parts(settings.output, spec, requests[spec.dataset]) for spec in specs}
    found = {spec.dataset: open_source(spec).parts() for spec in specs if not parts[spec.dataset]}
    check_writable(settings.output)
    plans = {spec.dataset: load_plan(settings.output, spec.dataset) for spec in specs}
    provenance = Provenance(decoder=DECODER, video_encoder=settings.video.encoder)
    all_done = all(is_done(settings.output, dataset, plan) for dataset, plan in plans.items())
    if not all_done:
        watchdog.progress("load models, start Ray")
        provenance = _with_models(provenance, text_encoder, latent_codec)  # a wrong model name stops here
        _start_ray()
        _check_resources(settings, text_encoder is not None, latent_codec is not None)
    for dataset in parts:
        remove_left_overs(settings.output, dataset)
        if dataset in found:  # from here on the request is fixed, so every mistake has to be told before
            write_request(settings.output, dataset, requests[dataset], found[dataset])
    parts |= found
    job = Job({spec.dataset: spec for spec in specs}, settings, provenance, latent_codec is None)
    _list_episodes(
        job, watchdog, {dataset: of_dataset for dataset, of_dataset in parts.items() if plans[dataset] is None}
    )
    complete = {
        spec.dataset: plans[spec.dataset] or _plan(job, watchdog, spec, len(parts[spec.dataset])) for spec in specs
    }
    if text_encoder is not None:
        _encode_captions(job, watchdog, complete, text_encoder)
    progress = _make_shards(job, watchdog, complete, latent_codec)
    watchdog.progress("count rows")
    seconds = time.monotonic() - started
    return _patiently("counting rows", lambda: summarise(settings, complete, progress, seconds))


def _with_models(
    provenance: Provenance, text_encoder: TextEncoderFactory | None, latent_codec: LatentCodecFactory | None
) -> Provenance:
    if text_encoder is not None:
        encoder = text_encoder()
        provenance = replace(provenance, text_encoder=encoder.model_id, text_encoder_is_stand_in=encoder.is_stand_in)
    if latent_codec is not None:
        codec = latent_codec()
        provenance = replace(provenance, latent_codec=codec.model_id, latent_codec_is_stand_in=codec.is_stand_in)
    return provenance


def _start_ray() -> None:
    start_ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Ray 2.60 has no named parameter in the place of `max_retries`.
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated", DeprecationWarning)
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _run(
    rows: Sequence[dict[str, Any]], build: Callable[[ray.data.Dataset], ray.data.Dataset]
) -> Iterator[dict[str, Any]]:
    """Runs a graph with one block, hence one task, for each row; yields results as they come."""
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = list(rows[first : first + _ROWS_AT_ONCE])
        yield from build(ray.data.from_items(some, override_num_blocks=len(some))).iter_rows()


def _patiently(doing: str, action: Callable[[], _T]) -> _T:
    """What the driver itself asks the store, with the patience that tasks have."""
    return retry_passing_faults(action, doing, RETRY_S)


def _list_episodes(job: Job, watchdog: Watchdog, parts: dict[str, list[str]]) -> None:
    rows = []
    for dataset, of_dataset in parts.items():
        folder = join(plan_folder(job.output, dataset), "listing")
        done = set(_patiently(f"listing {folder}", lambda folder=folder: list_names(folder)))  # type: ignore[misc]
        for number, part in enumerate(of_dataset):
            url = listing_url(job.output, dataset, number)
            if url.rsplit("/", 1)[-1] not in done:
                rows.append({"dataset": dataset, "part": part, "url": url})
    total = sum(map(len, parts.values()))
    if not rows:
        return
    with stage(watchdog, "list sources", total, "part", initial=total - len(rows)) as done_one:
        for _ in _run(rows, lambda dataset: dataset.map(partial(list_task, job), **_TASK)):
            done_one()


def _plan(job: Job, watchdog: Watchdog, spec: SourceSpec, num_parts: int) -> PlanSummary:
    urls = [listing_url(job.output, spec.dataset, number) for number in range(num_parts)]
    window = window_settings(spec, job.settings.window)

    def plan() -> PlanSummary:
        with stage(watchdog, f"plan {spec.dataset}", None, "episode") as done:
            listing = (done() or entry for entry in read_listing(urls))
            return make_plan(job.output, spec.dataset, listing, window, job.settings.shard, job.settings.products)

    return _patiently(f"planning {spec.dataset}", plan)


def _encode_captions(
    job: Job, watchdog: Watchdog, plans: dict[str, PlanSummary], text_encoder: TextEncoderFactory
) -> None:
    rows = _patiently("looking which captions are embedded", lambda: list(_pending_captions(job.output, plans)))
    if not rows:
        return
    num_captions = (plans[row["dataset"]].num_captions - row["number"] * CAPTIONS_PER_FILE for row in rows)
    total = sum(min(CAPTIONS_PER_FILE, number) for number in num_captions)
    with stage(watchdog, "embed captions", total, "caption") as done:
        results = _run(
            rows,
            lambda dataset: dataset.map(
                TextActor,
                fn_constructor_args=(job.output, text_encoder),
                **_encoder_options(job, len(rows), _gpus_for_captions()),
            ),
        )
        for row in results:
            done(row["num_captions"])


def _pending_captions(output: str, plans: dict[str, PlanSummary]) -> Iterator[dict[str, Any]]:
    for dataset, plan in plans.items():
        if next(pending_shards(output, dataset, plan), None) is None:
            continue
        files = set(list_names(join(plan_folder(output, dataset), "text")))
        for number in range(-(-plan.num_captions // CAPTIONS_PER_FILE)):
            if text_url(output, dataset, number).rsplit("/", 1)[-1] not in files:
                yield {"dataset": dataset, "number": number}


def _make_shards(
    job: Job, watchdog: Watchdog, plans: dict[str, PlanSummary], latent_codec: LatentCodecFactory | None
) -> dict[str, float]:
    pending = _patiently(
        "looking which shards are done",
        lambda: [(name, *shard) for name, plan in plans.items() for shard in pending_shards(job.output, name, plan)],
    )
    rows = [{"dataset": dataset, "product": product, "number": number} for dataset, product, number in pending]

    def graph(dataset: ray.data.Dataset) -> ray.data.Dataset:
        if latent_codec is None:
            return dataset.map(partial(make_task, job), **_TASK)
        resources = _encoder_options(job, len(rows), find_cluster().total("GPU"))
        decoded = dataset.map(partial(decode_task, job), **_TASK)
        encoded = decoded.map(LatentActor, fn_constructor_args=(latent_codec,), **resources)
        return encoded.map(partial(write_task, job), **_TASK)

    written = rejected = num_bytes = 0
    meter = ray_meter(job.output)
    started = time.monotonic()
    with stage(watchdog, "make shards", len(rows), "shard") as done:
        for result in _run(rows, graph):
            written += result["written"]
            rejected += result["rejected"] + result["filtered"]
            num_bytes += result["num_bytes"]
            of_shard = {"dataset": result["dataset"], "product": result["product"]}
            meter.tell("vpp_shard_seconds", result["seconds"], **of_shard)
            for status in STATUSES:
                meter.tell("vpp_manifest_rows", result[status], status=status, **of_shard)
            rate = written / max(time.monotonic() - started, 1e-9)
            told = f"{written} written, {rejected} turned away, {rate:.1f} clips or episodes/s"
            done(1, last=result["name"], postfix=told)
    return {"shards": len(rows), "written": written, "seconds": time.monotonic() - started, "num_bytes": num_bytes}


def _encoders(settings: PreprocessSettings, num_gpus: float) -> tuple[int, dict[str, float]]:
    """How many encoders there are, and what each takes."""
    return settings.num_encoders or max(1, int(num_gpus)), {"GPU": 1} if num_gpus >= 1 else {"CPU": 1}


def _encoder_options(job: Job, num_rows: int, num_gpus: float) -> dict[str, Any]:
    number, each = _encoders(job.settings, num_gpus)
    options = {"compute": ray.data.ActorPoolStrategy(size=min(number, num_rows)), "max_restarts": 3}
    # A byte of memory makes the request unlike a decoding task's, which Ray Data would otherwise fuse into the actors.
    return options | ({"num_gpus": 1} if "GPU" in each else {"num_cpus": 1, "memory": 1})


def _gpus_for_captions() -> float:
    return float(ray.cluster_resources().get("GPU", 0))  # not worth a node with GPUs of its own


def _check_resources(settings: PreprocessSettings, has_captions: bool, has_latents: bool) -> None:
    """Makes sure that every stage can be scheduled: Ray would wait for ever."""
    cluster = find_cluster()
    cluster.check_holds("tasks", {"CPU": 1}, 1, "start Ray with --num-cpus")
    if has_captions:
        number, each = _encoders(settings, _gpus_for_captions())
        cluster.check_holds("caption encoders", each, number, "set a smaller --num-encoders")
    if has_latents:
        number, each = _encoders(settings, cluster.total("GPU"))
        number += each == {"CPU": 1}  # a decoding task beside them
        cluster.check_holds(
            "latent encoders and a task", each, number, "set a smaller --num-encoders or --latents none"
        )
