"""The commands of a README, as it shows them."""

from __future__ import annotations

import re
from pathlib import Path


def command_blocks(readme: Path, heading: str) -> list[str]:
    """The bash blocks below a heading, up to the next heading of the same rank."""
    rank = re.match(r"#+", heading).group()  # type: ignore[union-attr]
    section = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^{rank} |\Z)", readme.read_text(), re.M | re.S)
    assert section, f"no heading '{heading}' in {readme}"
    return re.findall(r"^```bash\n(.*?)^```$", section.group(1), re.M | re.S)
