"""The page in a real browser: nothing is complained of, videos can be played, nothing is wider than the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import chromium
import pytest
from finished_run import write_run
from running import run

pytest.importorskip("selenium.webdriver")
pytestmark = pytest.mark.skipif(not chromium.IS_THERE, reason=chromium.MISSING)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("runs") / "a run"
    write_run(root)
    code, output = run("report", root, cwd=root)
    assert code == 0, output
    driver = chromium.start()
    driver.get((root / "report.html").as_uri())
    yield driver
    driver.quit()


def test_the_console_stays_empty_and_every_section_is_there(browser: Any) -> None:
    assert browser.get_log("browser") == []
    shown = browser.execute_script("return [...document.querySelectorAll('section')].map(s => [s.id, s.offsetHeight])")
    assert [name for name, height in shown if height > 40] == [
        "data", "video-model", "policy", "success", "timings", "configuration",
    ]  # fmt: skip


def test_every_video_has_loaded_its_metadata(browser: Any) -> None:
    script = """
        const done = arguments[0], videos = [...document.querySelectorAll('video')]
        const loaded = v => v.readyState > 0 || v.error ? v : new Promise(end => {
            v.onloadedmetadata = v.onerror = end; v.preload = 'metadata' })
        Promise.all(videos.map(loaded)).then(() => done(videos.map(v => v.videoWidth)))"""
    widths = browser.execute_async_script(script)
    assert len(widths) == 3 + 1 + 3  # clips, a prediction, an episode of each evaluation
    assert min(widths) > 0


def test_charts_are_drawn(browser: Any) -> None:
    script = "return [...document.querySelectorAll('svg')].map(s => s.getBBox().height)"
    assert min(browser.execute_script(script)) > 80
    assert len(browser.find_elements("css selector", "svg polyline")) == 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Any, width_px: int, scheme: str) -> None:
    chromium.set_screen(browser, width_px, 900, scheme)
    assert chromium.wider_than_the_screen(browser) == (width_px, 0, [])
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 380) == (scheme == "light")
