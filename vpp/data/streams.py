"""Turns a mixture into streams: what samples there are, and with what probability a draw takes each of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from schemas.errors import UsageError
from vpp.data.mixture import Mixture, mixture_probabilities, parse_cameras, parse_mixture
from vpp.data.order import SampleOrder, Stream, piece_starts
from vpp.data.sample_index import SampleIndex
from vpp.data.settings import DataSettings, SamplingSettings

logger = logging.getLogger(__name__)


def training_order(
    index: SampleIndex, rows: np.ndarray, settings: SamplingSettings, seed: int, global_batch: int
) -> SampleOrder:
    """The order in which clips or windows are trained on.

    Args:
        index: The samples.
        rows: Those to train on, ascending.
        settings: Mixture, cameras and how far samples are shuffled.
        seed: Of the run.
        global_batch: Samples of a step, over all workers.

    Raises:
        UsageError: If the settings name datasets or cameras that are not there, or nothing is left to train on.
    """
    mixture = parse_mixture(settings.mixture)
    if isinstance(settings, DataSettings):
        cameras = parse_cameras(settings.cameras)
    else:  # a window has all views
        mixture, cameras = replace(mixture, cameras={}), {}
    streams = make_streams(index, rows, mixture, cameras, settings.piece_samples)
    return SampleOrder(streams, seed, global_batch, settings.piece_samples * settings.shuffle_pieces)


def make_streams(
    index: SampleIndex,
    rows: np.ndarray,
    mixture: Mixture,
    cameras: Mapping[str, Mapping[str, float]],
    piece_samples: int,
) -> list[Stream]:
    """One stream a dataset, or one a camera of it where cameras have weights, in the order of their names.

    Args:
        index: The samples.
        rows: Those to draw from, ascending.
        mixture: Weights of datasets.
        cameras: Weights of cameras by dataset, fixed probabilities within the dataset.
        piece_samples: Longest piece of adjacent samples.

    Raises:
        UsageError: If a dataset or camera that is named is not there, or nothing is left.
    """
    codes = index.dataset_codes_of(rows)
    rows_of = {name: rows[codes == code] for code, name in enumerate(index.datasets)}
    rows_of = {name: of_dataset for name, of_dataset in rows_of.items() if len(of_dataset)}
    unknown = sorted(set(cameras) - set(rows_of))
    if unknown:
        raise UsageError(
            f"cameras: expected datasets that have clips to train on, found {', '.join(unknown)}; "
            f"known: {', '.join(rows_of) or 'none'}"
        )
    weights_of = dict(cameras)
    for name in set(mixture.cameras) & set(rows_of) - set(cameras):  # a preset's, where all of them are there
        there = {index.cameras[code] for code in np.unique(index.camera_codes_of(rows_of[name])).tolist()}
        if set(mixture.cameras[name]) <= there:
            weights_of[name] = mixture.cameras[name]
    rows_of_camera = {name: _by_camera(index, rows_of[name], name, weights) for name, weights in weights_of.items()}
    sizes = {name: len(of_dataset) for name, of_dataset in rows_of.items()}
    sizes |= {name: sum(map(len, of_camera.values())) for name, of_camera in rows_of_camera.items()}
    streams = []
    for dataset, probability in mixture.probabilities(sizes).items():
        parts = {dataset: (probability, rows_of[dataset])}
        if dataset in rows_of_camera:
            of_camera = rows_of_camera[dataset]
            shares = mixture_probabilities(
                weights_of[dataset], {name: len(of) for name, of in of_camera.items()}, "fixed"
            )
            parts = {f"{dataset}/{name}": (probability * share, of_camera[name]) for name, share in shares.items()}
        for name, (share, of_stream) in parts.items():
            starts = piece_starts(index.shard_codes_of(of_stream), piece_samples)
            streams.append(Stream(name, dataset, share, of_stream, starts))
            logger.info("stream %s: %d samples, probability %.4f", name, len(of_stream), share)
    return streams


def _by_camera(
    index: SampleIndex, rows: np.ndarray, dataset: str, weights: Mapping[str, float]
) -> dict[str, np.ndarray]:
    codes = index.camera_codes_of(rows)
    known = {index.cameras[code]: code for code in np.unique(codes).tolist()}
    unknown = sorted(set(weights) - set(known))
    if unknown:
        raise UsageError(
            f"cameras: {dataset}: expected cameras of its clips to train on, found {', '.join(unknown)}; "
            f"known: {', '.join(known)}"
        )
    unused = sorted(name for name in known if not weights.get(name))
    if unused:
        logger.info("cameras: %s: no clip is drawn from %s", dataset, ", ".join(unused))
    return {name: rows[codes == known[name]] for name, weight in weights.items() if weight > 0}
