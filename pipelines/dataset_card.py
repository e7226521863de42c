"""The card of a dataset: what it was made from and with, and what became of it, counted. `<output>/README.md`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.encoder import STAND_IN
from schemas.hub_card import NO_LICENCE, code, hub_card, table
from schemas.shard import PRODUCTS

_USE = """## Use

`manifest/` has a row for every sample, with the byte range of each member, and answers SQL
(`python jobs/query.py this/folder counts`); `shards/` are WebDataset tars. A clip is `.mp4` of 16 frames, `.txt`,
`.json` and `.text.npy` (CLIP's token sequence); an episode is a video for each camera, `.actions.npy`, `.proprio.npy`
and `.txt`."""


def dataset_card(
    counts: Mapping[str, Mapping[str, Mapping[str, Any]]], requests: Mapping[str, Mapping[str, Any]]
) -> str:
    """The text of a dataset's `README.md`.

    Where the sources lie is left out: a machine's path says nothing elsewhere, and a bucket's name may be nobody's
    business.

    Args:
        counts: By dataset and product, as in `summary.json`: `planned`, `written`, `rejected`, `filtered`, `reasons`.
        requests: By dataset, what decided its files: `pipelines.request.request_of`.
    """
    written = [product for product in PRODUCTS if any(of.get(product, {}).get("written", 0) for of in counts.values())]
    front = {
        "task_categories": ["robotics"],
        "tags": ["robotics", "webdataset", "video-prediction-policy"],
        "configs": [{"config_name": product, "data_files": f"{product}/shards/*/*.tar"} for product in written],
    }
    about = (
        "Video clips with text for training a video model, and whole trajectories with actions for a policy "
        "([Video Prediction Policy](https://arxiv.org/abs/2412.14803)), made by `jobs/preprocess.py`."
    )
    made = [
        (
            code(name),
            code(requests[name]["source"]["kind"]),
            f"{requests[name]['video']['frame_size']} px",
            _encoder(requests[name]["text_encoder"]),
            _encoder(requests[name]["latents"]),
        )
        for name in sorted(counts)
    ]
    numbers = [
        (
            code(name),
            product,
            *(f"{of[product][status]:,}" for status in ("planned", "written", "rejected", "filtered")),
        )
        for name, of in sorted(counts.items())
        for product in PRODUCTS
        if product in of
    ]
    reasons = [
        (code(name), product, code(reason), f"{count:,}")
        for name, of in sorted(counts.items())
        for product in PRODUCTS
        for reason, count in of.get(product, {}).get("reasons", {}).items()
    ]
    blocks = [
        about,
        table(("dataset", "source", "frames", "text encoder", "latents"), made),
        "## What became of it\n\nNothing vanishes: planned = written + rejected + filtered.",
        table(("dataset", "product", "planned", "written", "rejected", "filtered"), numbers),
    ]
    if reasons:
        blocks.append(table(("dataset", "product", "reason", "rows"), reasons))
    return hub_card(front, "Robot videos", *blocks, _USE, NO_LICENCE)


def _encoder(name: str) -> str:
    return "none" if name == "none" else code(name) + (": random weights, a stand-in" if name == STAND_IN else "")
