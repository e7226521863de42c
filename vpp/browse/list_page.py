"""Lists of clips and episodes: what they are narrowed to, and a card for each, whose video plays at a click."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from schemas.shard import VIDEO, Product
from vpp.browse.dataset import Dataset, id_column, is_id
from vpp.browse.filters import Filters
from vpp.browse.page import address, page, section, short
from vpp.browse.snapshot import Snapshot
from vpp.report.html import Html, number, tag


def list_page(product: Product) -> Callable[[Snapshot, Mapping[str, str]], str]:
    """The page of a product."""

    def show(snapshot: Snapshot, query: Mapping[str, str]) -> str:
        dataset, filters = snapshot.dataset(query.get("data")), Filters.from_query(query)
        data, after = dataset.run.path, query.get("after", "")
        found = dataset.page(product, filters, after)
        total = dataset.number(product, filters)
        chosen = filters.chosen()
        pages = [tag("a", "First page", href=address(f"/{product}", data=data, **chosen), class_="button")]
        if found.after:
            following = address(f"/{product}", data=data, **chosen, after=found.after)
            pages.append(tag("a", "Next page", href=following, class_="button", rel="next"))
        cards = [_card(dataset, product, row) for row in found.rows]
        return page(
            snapshot,
            product.title(),
            section("Filters", _form(dataset, product, filters)),
            section(
                f"{total:,} {product if total != 1 else product[:-1]}",
                tag("p", "By id, which is a hash: a page is a sample of all.", class_="faint"),
                tag("div", *cards, class_="films small") if cards else tag("p", "Nothing is left.", class_="missing"),
                tag("p", *pages[0 if after else 1 :], class_="pages"),
            ),
            data=data,
        )

    return show


def _form(dataset: Dataset, product: Product, filters: Filters) -> Html:
    rows = [row for row in dataset.counts() if row["product"] == product]
    options = {name: dict.fromkeys(row[name] or "" for row in rows) for name in ("dataset", "status", "reason")}
    return tag(
        "form",
        tag("input", type="hidden", name_="data", value=dataset.run.path),
        *(_select(name, values, getattr(filters, name)) for name, values in options.items()),
        _input("caption", "caption contains", filters.caption),
        _input("episode", "source episode", filters.episode),
        tag("button", "Show"),
        tag("a", "Clear", href=address(f"/{product}", data=dataset.run.path), class_="button"),
        method="get",
        action=f"/{product}",
        class_="filters",
        role="search",
    )


def _select(name: str, values: Iterable[str], chosen: str) -> Html:
    shown = dict.fromkeys(["", *values, chosen])
    options = (tag("option", value or "any", value=value, selected=value == chosen) for value in shown)
    return tag("label", name, tag("select", *options, name_=name))


def _input(name: str, label: str, value: str) -> Html:
    return tag("label", label, tag("input", type="search", name_=name, value=value, maxlength=200))


def _card(dataset: Dataset, product: Product, row: Mapping[str, Any]) -> Html:
    data, identity = dataset.run.path, row[id_column(product)]
    name = caption = short(row["caption"] or "without a caption")
    if is_id(identity):
        caption = tag("a", caption, href=address(f"/{product[:-1]}", data=data, id=identity))
    camera = row.get("camera") or ", ".join(row.get("cameras") or ())
    frames = f"frames {number(row['start_frame'])} to {number(row['end_frame'])}"
    place = f"{row['dataset']}, {camera or '-'}, {frames} of {number(row['source_episode'])}"
    member = first_video(row)
    if row["status"] == "written" and member and is_id(identity):
        source = member_address(data, product, identity, member)
        seen: Html = tag(
            "video", src=source, controls=True, muted=True, loop=True, playsinline=True, preload="metadata",
            aria_label=name,
        )  # fmt: skip
    else:
        why = tag("p", f"{row['status']}: {row['reason'] or 'without a reason'}", class_="bad")
        seen = tag("div", why, tag("p", row["detail"] or ""), class_="turned")
    told = tag("figcaption", tag("b", caption), tag("span", place, class_="faint"))
    return tag("figure", seen, told, class_="film", id=f"c-{identity}" if is_id(identity) else None)


def first_video(row: Mapping[str, Any]) -> str:
    """The member that holds the first of a sample's videos; empty if there is none."""
    names = [str(member["name"]) for member in row["members"] or ()]
    return next((name for name in names if name == VIDEO or name.endswith(f".{VIDEO}")), "")


def member_address(data: str, product: Product, identity: str, name: str) -> str:
    """Where the bytes of a sample's member are."""
    return address("/member", data=data, product=product, id=identity, name=name)
