"""Ways to damage bytes, JSON and text, all from one random generator."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

ODD_TEXTS = (
    "", " ", "a\nb", "\x1b[2J", "é漢\u202e", "x" * 5000, "../../x", "/dev/null", "%s%n", "-1",
    "nan", "inf", "1e999", "0x10", "9" * 400, "9" * 4000, "1_000", ",", ",,", ":", "a:b:c", "=",
    "true", "None", "[]", "{}", "'", '"', "\\", "*", "~", "\t", "0", "-0.0", "1e-320", "２",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    ..., None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, -0.5, 0.5, 1e308, "x", "", "a\nb", [],
    {}, [[[[1]]]], {"a": {"b": []}}, [None], ["x"], [1, 2], "\ud800", "é" * 3000,
)  # fmt: skip


def pick(rng: np.random.Generator, choices: Any) -> Any:
    """Returns one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Flips bits, cuts, repeats or overwrites."""
    how, size = int(rng.integers(5)), len(content)
    if how == 0 or not size:
        return content[: int(rng.integers(size + 1))]
    broken = bytearray(content)
    if how == 1:
        start = int(rng.integers(size))
        broken[start : start + 64] = rng.bytes(64)
    elif how == 2:
        start = int(rng.integers(size))
        broken[start:start] = broken[start : start + 200]
    else:
        for place in rng.integers(0, size, int(rng.integers(1, 9))):
            broken[place] ^= 1 << int(rng.integers(8))
    return bytes(broken)


def nodes(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the place of every value in JSON."""
    if path:
        yield path
    if isinstance(content, (dict, list)):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from nodes(value, (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Returns JSON with one value replaced, or taken away where `value` is ..."""
    result = copy.deepcopy(content)
    home = result
    for key in path[:-1]:
        home = home[key]
    if value is ...:
        del home[path[-1]]
    else:
        home[path[-1]] = value
    return result


def swapped(rng: np.random.Generator, content: Any) -> Any:
    """Returns JSON with one to three values of other types, or nested a little deeper."""
    for _ in range(int(rng.integers(1, 4))):
        places = list(nodes(content))
        if not places:
            return content
        place = pick(rng, places)
        value = pick(rng, ODD_VALUES)
        if rng.random() < 0.1:
            value = [content]
        content = changed(content, place, value)
    return content
