"""Turns Ego4D, Open-X, CALVIN and MetaWorld videos into shards of clips and episodes with a manifest. See `--help`."""

import json
import logging
import re

from ray.exceptions import RayError

from pipelines.preprocess import preprocess
from pipelines.request import PreprocessSettings
from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from schemas.layout import summary_url
from vpp.video.frozen_models import latent_codec_factory, text_encoder_factory


def main() -> int:
    """Parses, logs the resolved settings, runs, prints what came out."""
    settings = load_settings(PreprocessSettings, "preprocess")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    try:
        summary = preprocess(
            settings, text_encoder_factory(settings.text_encoder), latent_codec_factory(settings.latents)
        )
    except RayError as error:
        logging.error("stopped: %s", _cause(error))
        logging.error("what is done is kept: the same command continues")
        return 1
    print(f"{'dataset':20} {'product':10} {'planned':>10} {'written':>10} {'rejected':>10} {'filtered':>10}")
    for dataset, products in summary["datasets"].items():
        for product, row in products.items():
            if not row["planned"]:
                continue
            counts = " ".join(f"{row[name]:>10,}" for name in ("planned", "written", "rejected", "filtered"))
            print(f"{dataset:20} {product:10} {counts}")
            for reason, number in row["reasons"].items():
                print(f"{'':31} {number:>10,} {reason}")
    run = summary["this_run"]
    print(
        f"{run['shards']} shards, {run['written']} clips and episodes, {run['num_bytes'] / 1e6:.1f} MB "
        f"made in {run['total_seconds']:.1f} s"
    )
    print(f"summary: {summary_url(settings.output)}")
    return 0


def _cause(error: RayError) -> str:
    """The line that names the exception behind Ray's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception|Exit)\b", line) and "ray." not in line]
    return (named or lines)[0]


if __name__ == "__main__":
    run_job(main)
