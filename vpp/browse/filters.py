"""What a list of clips or episodes is narrowed to: as an address holds it, and as SQL with parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from schemas.errors import UsageError

_MOST_CHARACTERS = 200

_CONDITIONS = {
    "dataset": "dataset = $dataset",
    "status": "status = $status",
    "reason": "reason = $reason",
    "episode": "source_episode = $episode",
    "caption": "contains(lower(caption), lower($caption))",
}


@dataclass(frozen=True)
class Filters:
    """Conditions that all hold; an empty one leaves everything in.

    Attributes:
        dataset: Name of a dataset in the manifest.
        status: `written`, `rejected` or `filtered`.
        reason: Why something was turned away.
        episode: The source's own name of an episode.
        caption: Text that the caption contains, in capitals or not.

    Raises:
        UsageError: If one is very long.
    """

    dataset: str = ""
    status: str = ""
    reason: str = ""
    episode: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if len(value) > _MOST_CHARACTERS:
                raise UsageError(f"{name}: expected at most {_MOST_CHARACTERS} characters, found {len(value)}")

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Filters:
        """Reads them from an address; other names in it are left alone."""
        return cls(**{name: query[name] for name in _CONDITIONS if name in query})

    def chosen(self) -> dict[str, str]:
        """Those that are not empty.

        >>> Filters(status="rejected").chosen()
        {'status': 'rejected'}
        """
        return {name: value for name, value in asdict(self).items() if value}

    def where(self) -> str:
        """The conditions as SQL, with `chosen` as its parameters.

        >>> Filters(status="rejected", dataset="a").where()
        'dataset = $dataset and status = $status'
        >>> Filters().where()
        'true'
        """
        return " and ".join(_CONDITIONS[name] for name in self.chosen()) or "true"
