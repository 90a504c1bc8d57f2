"""Which GPU a worker computes on, and with how many others it shares it."""

from __future__ import annotations


def card_of(worker: int, gpus: int, visible: str | None) -> str:
    """Returns what `CUDA_VISIBLE_DEVICES` is for a worker: one card, round robin.

    Args:
        worker: Its index, from 0.
        gpus: How many cards the run uses, at least 1.
        visible: `CUDA_VISIBLE_DEVICES` of the run itself: numbers or names, with commas; None:
            not set, all cards are visible.
    """
    place = worker % gpus
    return str(place) if visible is None else visible.split(",")[place].strip()


def sharers(worker: int, workers: int, gpus: int) -> int:
    """Returns how many workers compute on this worker's card, itself included."""
    return len(range(worker % gpus, workers, gpus))
