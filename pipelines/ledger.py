"""What is done, what is left, and whether the counts add up; all of it read from the files of the output itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.plan_files import PlanSummary
from schemas.layout import manifest_folder
from schemas.shard import PRODUCTS, Product
from schemas.storage import join, list_names, read_bytes

_READERS = 16  # on an object store, reading small files is waiting

Counts = dict[str, dict[str, Counter[str]]]
"""Number of manifest rows by product, dataset and `status` or `status:reason`."""


def pending_shards(output: str, dataset: str, plan: PlanSummary) -> Iterator[tuple[Product, int]]:
    """Yields product and number of each planned shard that has no manifest part, in order."""
    for product in PRODUCTS:
        done = set(list_names(manifest_folder(output, product, dataset)))
        for number in range(plan.num_shards[product]):
            if f"{number:06d}.parquet" not in done:
                yield product, number


def is_done(output: str, dataset: str, plan: PlanSummary | None) -> bool:
    """Whether a dataset is planned and every shard of it has its manifest part."""
    return plan is not None and next(pending_shards(output, dataset, plan), None) is None


def count_rows(output: str, datasets: Iterable[str]) -> Counts:
    """Counts the rows of every manifest part, as many parts in memory as there are threads."""
    counts: Counts = {}
    with ThreadPoolExecutor(_READERS) as readers:
        for dataset in datasets:
            for product in PRODUCTS:
                folder = manifest_folder(output, product, dataset)
                counter: Counter[str] = Counter()
                for of_part in readers.map(_count_part, [join(folder, name) for name in list_names(folder)]):
                    counter += of_part
                counts.setdefault(product, {})[dataset] = counter
    return counts


def _count_part(url: str) -> Counter[str]:
    columns = ["status", "reason"]
    table = pq.read_table(pa.BufferReader(read_bytes(url)), columns=columns)
    counter: Counter[str] = Counter()
    for row in table.group_by(columns).aggregate([([], "count_all")]).to_pylist():
        counter[row["status"]] += row["count_all"]
        if row["reason"]:
            counter[f"{row['status']}:{row['reason']}"] += row["count_all"]
    return counter
