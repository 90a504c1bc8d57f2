"""How much memory is there, so that what cannot fit is refused before it is asked for."""

from __future__ import annotations

from compress.core.errors import InputError
from compress.core.platform import host


def require_room(needed: int, what: str) -> None:
    """Refuses what cannot fit into memory, by the size that its header declares.

    Args:
        needed: Bytes.
        what: The thing, as the message begins ("Images of 'photos'").

    Raises:
        InputError: More is needed than there is.
    """
    room = host().available_bytes()
    if room is not None and needed > room:
        raise InputError(
            f"{what} must fit into memory. Received: {_gib(needed)} where {_gib(room)} are free."
        )


def _gib(size: int) -> str:
    # of sizes that no float holds the order of magnitude is enough
    return f"{size / 2**30:,.1f} GiB" if size < 2**100 else "more than 10^20 GiB"
