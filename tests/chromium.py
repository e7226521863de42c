"""A headless Chromium for tests of pages, where the machine has one with its driver."""

from __future__ import annotations

import os
import shutil
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
IS_THERE = bool(CHROMIUM and DRIVER)
MISSING = "no chromium and chromedriver on this machine"


def start() -> Any:
    """A driver that keeps what the console says; `quit` ends it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    for argument in ("--headless=new", "--disable-gpu", *sandbox):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    return driver


def wait_until_gone(driver: Any, element: Any) -> None:
    """Returns when the element is no longer in the page; raises `TimeoutException` after a minute."""
    from selenium.webdriver.support.expected_conditions import staleness_of
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 60).until(staleness_of(element))


def set_screen(driver: Any, width_px: int, height_px: int, scheme: str = "light") -> None:
    """Gives the page a size and a colour scheme."""
    size = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def wider_than_the_screen(driver: Any) -> tuple[int, int, list[str]]:
    """Width of the screen, how much of the page is hidden at its side, and what of it ends outside."""
    script = """
        document.querySelectorAll('details').forEach(d => d.open = true)
        const wide = [...document.querySelectorAll('main *')].filter(e => !e.parentElement.closest('.scroll, pre, svg')
            && (e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < 0))
        const page = document.documentElement
        return [innerWidth, page.scrollWidth - page.clientWidth, wide.map(e => e.outerHTML.slice(0, 80))]"""
    width, hidden, wide = driver.execute_script(script)
    return width, hidden, wide
