"""How pages reach a dataset. The job passes it in, since it is `pipelines` that reads manifests and shards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from schemas.shard import Product


class Manifest(Protocol):
    """A dataset's manifest, read-only, as `pipelines.query.Manifest` is; one query at a time."""

    def select(self, sql: str, parameters: Mapping[str, object]) -> pa.Table:
        """The rows of one SELECT over the views `clips` and `episodes`."""


class Locate(Protocol):
    """Finds members of a sample, as `pipelines.range_read.locate_members` does."""

    def __call__(
        self, output: str, product: Product, row: Mapping[str, Any], names: Collection[str] | None = None
    ) -> tuple[str, int, int]:
        """URL of the shard, and the half-open range of bytes from the first of the members to the last."""


@dataclass(frozen=True)
class Access:
    """What the job passes in.

    Attributes:
        open_manifest: Opens the manifest of a dataset by its URL.
        locate: Finds members of a sample.
    """

    open_manifest: Callable[[str], Manifest]
    locate: Locate
