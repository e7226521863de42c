"""The pages in a real browser: a click plays a clip, a filter narrows the list, nothing is complained of or cut off.

On a small folder; on what `make demo` has left in out/demo, where it is there; and on a manifest of a million clips, for
which the time of each page is printed (`pytest -s -m slow` shows it).
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chromium
import pytest
from browsed import browsing, clip_id, write_folder
from running import ROOT
from small_dataset import clip_video, write_shard

pytest.importorskip("selenium.webdriver")
pytestmark = pytest.mark.skipif(not chromium.IS_THERE, reason=chromium.MISSING)

PLAYED = "played"
"""The dataset of the large manifest whose clips are there; the rest of it is rows alone."""


@dataclass(frozen=True)
class Visit:
    """A browser that looks at a folder."""

    driver: Any
    site: str
    kind: str

    def open(self, path: str) -> None:
        self.driver.get(self.site + path)
        if self.kind == "million":
            script = """const [page] = performance.getEntriesByType('navigation')
                return page.responseEnd - page.requestStart"""
            print(f"\n/{path}: {self.driver.execute_script(script):.0f} ms", end="")

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def leave_by(self, selector: str) -> None:
        """Clicks what opens another page and waits until this one has gone: a click returns before that."""
        (page,) = self.all("html")
        self.all(selector)[0].click()
        chromium.wait_until_gone(self.driver, page)

    def total(self) -> int:
        """The number of clips that a list tells."""
        return int(self.all("section:last-of-type h2")[0].text.split()[0].replace(",", ""))


def write_million(root: Path) -> None:
    written = runpy.run_path(str(ROOT / "benchmarks/synthetic_manifest.py"))["write_manifest"]
    written(root, 1_000_000, 100)
    columns = {"camera": "top", "caption": "count", "start_frame": 0, "end_frame": 16}
    write_shard(str(root), PLAYED, "000000", {clip_id(n): (columns, {"mp4": clip_video(20 * n)}) for n in range(3)})


@pytest.fixture(scope="module", params=["small", "demo", pytest.param("million", marks=pytest.mark.slow)])
def visit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    folder = ROOT / "out/demo" if request.param == "demo" else tmp_path_factory.mktemp("shown") / "run"
    if request.param == "demo" and not folder.is_dir():
        pytest.skip("`make demo` has not left out/demo")
    if request.param != "demo":
        {"small": write_folder, "million": write_million}[request.param](folder)
    driver = chromium.start()
    with browsing(str(folder)) as site:
        yield Visit(driver, site, request.param)
    driver.quit()


def test_a_click_plays_a_clip(visit: Visit) -> None:
    visit.open(f"clips?status=written&dataset={PLAYED if visit.kind == 'million' else ''}")
    video = visit.all("video")[0]
    visit.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", video)
    assert video.get_property("paused")
    video.click()
    script = """
        const [video, done] = arguments
        video.onerror = () => done('error')
        video.ontimeupdate = () => video.currentTime > 0.2 && done('played')"""
    assert visit.driver.execute_async_script(script, video) == "played"


def test_a_filter_narrows_the_list(visit: Visit) -> None:
    visit.open("clips")
    before = visit.total()
    caption = visit.all("figure b a")[-1].text
    field = visit.all("input[name=caption]")[0]
    field.send_keys(caption.upper())
    visit.leave_by("form.filters button")
    assert 0 < visit.total() < before
    assert all(caption in card.text for card in visit.all("figure b a"))
    visit.leave_by("form.filters a")
    assert visit.total() == before


def test_the_next_page_shows_other_clips(visit: Visit) -> None:
    visit.open("clips")
    seen = [card.get_attribute("id") for card in visit.all("figure")]
    following = visit.all("a[rel=next]")
    assert following
    visit.open(following[0].get_attribute("href").removeprefix(visit.site))
    others = [card.get_attribute("id") for card in visit.all("figure")]
    assert not set(seen) & set(others)
    assert max(filter(None, seen)) < min(filter(None, others))


def test_the_button_has_everything_read_again(visit: Visit) -> None:
    visit.open("clips")
    visit.leave_by("header button")
    assert [title.text for title in visit.all("h1")] == ["Overview"]


@pytest.mark.parametrize("width_px", [390, 1280])
def test_no_page_complains_or_is_wider_than_the_screen(visit: Visit, width_px: int) -> None:
    chromium.set_screen(visit.driver, width_px, 900)
    clips = "clips?dataset=played" if visit.kind == "million" else "clips"  # of other rows no shard is there
    paths = ["", clips, "clips?status=rejected", "episodes", *_first(visit, "clips"), *_first(visit, "episodes")]
    visit.open("")
    boxes = [box.get_attribute("value") for box in visit.all("input[type=checkbox]")]
    paths += [f"runs?{'&'.join(f'run={name}' for name in boxes)}".replace("#", "%23")] if boxes else []
    visit.driver.get_log("browser")
    for path in paths:
        visit.open(path)
        assert visit.driver.get_log("browser") == [], path
        assert chromium.wider_than_the_screen(visit.driver) == (width_px, 0, []), path


def _first(visit: Visit, product: str) -> list[str]:
    """The page of the first sample in a list; none where there is none, or its shard is not there."""
    visit.open(f"{product}?status=written&dataset={PLAYED if visit.kind == 'million' else ''}")
    return [link.get_attribute("href").removeprefix(visit.site) for link in visit.all("figure b a")[:1]]
