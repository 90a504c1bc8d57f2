"""What weight pruning removes together: single weights, N:M groups or blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from compress.core.errors import InputError, one_line
from compress.plan.forms import Written

MOST_PATTERN = 2**16
_RULE = (
    "be unstructured, N:M with N < M (2:4), or ROWSxCOLUMNS (1x4), of numbers up to "
    f"{MOST_PATTERN:,}"
)


@dataclass(frozen=True)
class PatternSpec(Written):
    """The pattern that a plan names; `compress.prune.weights.patterns.pattern_of` makes it.

    Attributes:
        kind: "unstructured", "n:m" (N of M along the inputs are kept) or "block".
        first, second: N and M, or rows (inputs) and columns (outputs) of a block; else 0.

    Example:
        >>> PatternSpec.parse("2:4")
        PatternSpec(kind='n:m', first=2, second=4)
    """

    kind: Literal["unstructured", "n:m", "block"] = "unstructured"
    first: int = 0
    second: int = 0

    @classmethod
    def parse(cls, text: str, name: str = "a pattern") -> Self:
        """Reads "unstructured", "2:4" or "1x4".

        Raises:
            InputError: It is none of these, or N is not below M.
        """
        if text == "unstructured":
            return cls()
        found = re.fullmatch(r"(\d{1,9})([:x])(\d{1,9})", text, re.ASCII)
        if found:
            first, second = int(found[1]), int(found[3])
            between = found[2] == ":"
            valid = 1 <= first < second if between else min(first, second) >= 1
            if valid and max(first, second) <= MOST_PATTERN:
                return cls("n:m" if between else "block", first, second)
        raise InputError(f"{name} must {_RULE}. Received: {one_line(text)}.")

    def __str__(self) -> str:
        """Returns "unstructured", "2:4" or "1x4"."""
        if self.kind == "unstructured":
            return self.kind
        return f"{self.first}{':' if self.kind == 'n:m' else 'x'}{self.second}"
