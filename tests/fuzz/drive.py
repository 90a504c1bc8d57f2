"""Runs inputs of all families in turn and counts what came of them."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz.families import FAMILIES
from tests.fuzz.shelf import make_apart
from tests.fuzz.watch import GOOD, Outcome, Watched


@dataclass(frozen=True)
class Tried:
    """One input and its outcome; `family` and `index` make it again with the same seed."""

    family: str
    index: int
    words: tuple[str, ...]
    outcome: Outcome

    @property
    def good(self) -> bool:
        """Whether the command did what it should."""
        return self.outcome.kind in GOOD


def fuzz(
    inputs: int, seed: int, *, families: tuple[str, ...] = (), first: int = 0,
    on_each: Callable[[Tried], None] | None = None,
) -> list[Tried]:  # fmt: skip
    """Tries inputs, the families in turn.

    Args:
        inputs: How many.
        seed: With a family and an index it makes an input.
        families: Of `FAMILIES`; none: all.
        first: Index of the first input.
        on_each: Called after each.
    """
    found = []
    for tried in _tried(inputs, seed, families or tuple(FAMILIES), first):
        found.append(tried)
        if on_each is not None:
            on_each(tried)
    return found


def _tried(inputs: int, seed: int, families: tuple[str, ...], first: int) -> Iterator[Tried]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place, Watched() as watched:
        shelf = make_apart(Path(place))
        import keras  # noqa: F401 - children are forked with it, before it has begun to work

        for number in range(inputs):
            family, index = families[number % len(families)], first + number // len(families)
            folder = Path(place) / "input"
            folder.mkdir()
            rng = np.random.default_rng([seed, list(FAMILIES).index(family), index])
            words = FAMILIES[family](rng, folder, shelf)
            yield Tried(family, index, tuple(words), watched.run(words, folder))
            shutil.rmtree(folder)


def table(found: list[Tried]) -> dict[str, dict[str, int]]:
    """Returns counts of outcomes by family."""
    names = dict.fromkeys(item.family for item in found)
    return {
        name: dict(Counter(item.outcome.kind for item in found if item.family == name))
        for name in names
    }
