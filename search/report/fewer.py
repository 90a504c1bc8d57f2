"""Some of many: pictures of ten thousand lines show nothing and take a minute each."""

from __future__ import annotations

from collections.abc import Container, Sequence

from search.folder.records import Candidate

MOST = 300
"""Lines of a picture; those of the front are drawn whatever their number."""


def some_of(
    candidates: Sequence[Candidate], front: Container[str], most: int = MOST
) -> list[Candidate]:
    """Returns the front and others at equal distances, in their order.

    Args:
        candidates: In any order.
        front: Ids that are always there.
        most: Others are left out beyond so many in all.

    Example:
        >>> many = [Candidate(f"{number:04d}", "complete", {}, 0) for number in range(9)]
        >>> [item.id for item in some_of(many, {"0008"}, most=3)]
        ['0000', '0004', '0008']
    """
    if len(candidates) <= most:
        return list(candidates)
    others = [place for place, item in enumerate(candidates) if item.id not in front]
    room = max(0, most - (len(candidates) - len(others)))
    kept = {others[index * len(others) // room] for index in range(room)}
    return [item for place, item in enumerate(candidates) if place in kept or item.id in front]
