"""Where things lie in an output: the one place that knows the folder names.

<output>/{clips,episodes}/shards/<dataset>/<shard>.tar
<output>/{clips,episodes}/manifest/<dataset>/<shard>.parquet
<output>/plan/<dataset>/...
<output>/summary.json
"""

from __future__ import annotations

from schemas.shard import Product
from schemas.storage import join


def shard_path(dataset: str, shard: str) -> str:
    """Path of a tar relative to `<output>/<product>/shards`; stands in the manifest's column `shard`."""
    return f"{dataset}/{shard}.tar"


def shard_url(output: str, product: Product, dataset: str, shard: str) -> str:
    """URL of a tar."""
    return join(output, product, "shards", shard_path(dataset, shard))


def shard_folder(output: str, product: Product, dataset: str) -> str:
    """Folder of a dataset's tars."""
    return join(output, product, "shards", dataset)


def manifest_folder(output: str, product: Product, dataset: str = "") -> str:
    """Folder of the manifest parts of a product, or of one dataset of it."""
    return join(output, product, "manifest", *([dataset] if dataset else []))


def manifest_url(output: str, product: Product, dataset: str, part: str) -> str:
    """URL of one manifest part."""
    return join(manifest_folder(output, product, dataset), f"{part}.parquet")


def plan_folder(output: str, dataset: str) -> str:
    """Folder of a dataset's plan."""
    return join(output, "plan", dataset)


def summary_url(output: str) -> str:
    """URL of the summary."""
    return join(output, "summary.json")


def selection_url(output: str, name: str) -> str:
    """URL of a saved selection."""
    return join(output, "selections", f"{name}.parquet")
