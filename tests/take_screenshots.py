"""Takes the pictures of pages that README shows.

PYTHONPATH=. python tests/take_screenshots.py out/learn docs/images "clips=clips?caption=button" "runs=runs?run=evaluate&run=evaluate-wrong"
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import chromium
from browsed import browsing
from PIL import Image

SCREEN_PX = (1040, 860)
NUM_COLOURS = 200  # a picture stays below 150 kB


def main(folder: str, output: str, *pages: str) -> None:
    """Takes one picture a page, each given as NAME=PATH."""
    driver = chromium.start()
    chromium.set_screen(driver, *SCREEN_PX)
    with browsing(folder) as site:
        for name, _, path in (page.partition("=") for page in pages):
            driver.get(site + path)
            time.sleep(3)  # films show their first frames
            picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
            target = Path(output) / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
            print(f"{target}: {target.stat().st_size:,} bytes")
    driver.quit()


if __name__ == "__main__":
    main(*sys.argv[1:])
