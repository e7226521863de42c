"""The page in a real browser: nothing is complained of, videos can be played, nothing is wider than the screen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from finished_run import write_run
from running import run

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("runs") / "a run"
    write_run(root)
    code, output = run("report", root, cwd=root)
    assert code == 0, output
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--disable-gpu", *(["--no-sandbox"] if os.getuid() == 0 else [])):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
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
    size = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    script = """
        document.querySelectorAll('details').forEach(d => d.open = true)
        const wide = [...document.querySelectorAll('main *')].filter(e => !e.parentElement.closest('.scroll, pre, svg')
            && (e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < 0))
        const page = document.documentElement
        return [innerWidth, page.scrollWidth - page.clientWidth, wide.map(e => e.outerHTML.slice(0, 80)),
                getComputedStyle(document.body).backgroundColor]"""
    width, hidden, wide, paper = browser.execute_script(script)
    assert (width, hidden, wide) == (width_px, 0, [])
    assert (sum(map(int, paper[4:-1].split(","))) > 380) == (scheme == "light")
