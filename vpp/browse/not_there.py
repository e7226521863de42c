"""What is raised where an address names something that is not there."""

from __future__ import annotations

from schemas.errors import VPPError


class NotThere(VPPError):
    """No such page, run, row or file; the text is shown to whoever asked."""
