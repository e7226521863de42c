"""What lies in an output by dataset, product, status and reason; and that it adds up to what was planned."""

from __future__ import annotations

import json
from typing import Any

from pipelines.dataset_card import dataset_card
from pipelines.ledger import count_rows, is_done
from pipelines.plan_files import PlanSummary, load_plan, load_request
from pipelines.request import PreprocessSettings
from runtime.settings import commit, to_mapping
from schemas.hub_card import CARD
from schemas.layout import summary_url
from schemas.shard import PRODUCTS
from schemas.storage import join, list_names, write_bytes

STATUSES = ("written", "rejected", "filtered")
"""Of a row of the manifest."""


def summarise(
    settings: PreprocessSettings, plans: dict[str, PlanSummary], progress: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Counts every dataset of the output, also those of earlier runs, and compares with their plans.

    Args:
        settings: Of this run; also tells the output.
        plans: Of the datasets of this run, which are done.
        progress: What this run has made, for `this_run`.
        seconds: How long it took in all.

    Returns:
        What it wrote to `<output>/summary.json`; a card for the hub lies beside it.

    Raises:
        RuntimeError: If the counts do not add up.
    """
    output = settings.output
    others = {name: load_plan(output, name) for name in list_names(join(output, "plan")) if name not in plans}
    plans = plans | {name: plan for name, plan in others.items() if plan is not None and is_done(output, name, plan)}
    counts = count_rows(output, plans)
    datasets: dict[str, Any] = {}
    for dataset, plan in plans.items():
        for product in PRODUCTS:
            if not plan.planned[product]:
                continue
            by_status = counts[product][dataset]
            numbers = {status: by_status[status] for status in STATUSES}
            if plan.planned[product] != sum(numbers.values()):
                expected = f"expected {plan.planned[product]} rows as planned, found {numbers}"
                raise RuntimeError(f"the manifest of {dataset} ({product}) does not add up: {expected}")
            reasons = {name: number for name, number in sorted(by_status.items()) if ":" in name}
            of_dataset = datasets.setdefault(dataset, {})
            of_dataset[product] = {"planned": plan.planned[product], **numbers, "reasons": reasons}
    summary = {
        "datasets": datasets,
        "this_run": {**progress, "total_seconds": seconds},
        "settings": to_mapping(settings),
        "commit": commit(),
    }
    requests = {name: load_request(output, name) for name in datasets}
    card = dataset_card(datasets, {name: found[0] for name, found in requests.items() if found is not None})
    write_bytes(join(output, CARD), card.encode())
    write_bytes(summary_url(output), json.dumps(summary, indent=1, sort_keys=True).encode())
    return summary
