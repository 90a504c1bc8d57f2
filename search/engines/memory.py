"""How workers share the memory budget of their run."""

from __future__ import annotations

from compress.core.memory_budget import LEAST, current_budget

LEAST_OF_A_WORKER = 800_000_000
"""Bytes that a worker takes: TensorFlow twice, in its process and in the one that converts."""
FORKED_FROM = 100_000_000
"""Bytes of the process that a worker is a fork of: it does not count among the fork's own."""


def workers_fitting() -> int:
    """Return how many workers the memory budget has room for, at least 1."""
    return max(1, current_budget().free() // LEAST_OF_A_WORKER)


def memory_of_each(count: int) -> int:
    """Return the bytes that each of several workers may occupy: equal shares of what is free."""
    return max(LEAST, current_budget().free() // count - FORKED_FROM)
