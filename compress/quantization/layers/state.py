"""What all layers of one fake-quantized model look at: whether they quantize, and who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class State:
    """Read when a call is made, or traced.

    Attributes:
        quantizes: Whether values are rounded to their grids; else the model computes in floats.
        watch: Called with (layer of a range, values) in place of quantizing them.
    """

    quantizes: bool = True
    watch: Callable[[Any, Any], None] | None = None

    @contextmanager
    def watched(self, watch: Callable[[Any, Any], None]) -> Iterator[None]:
        """Lets the model compute in floats and shows what its ranges are of."""
        before = self.quantizes, self.watch
        self.quantizes, self.watch = False, watch
        try:
            yield
        finally:
            self.quantizes, self.watch = before

    @contextmanager
    def in_floats(self) -> Iterator[None]:
        """Lets the model compute in floats."""
        before, self.quantizes = self.quantizes, False
        try:
            yield
        finally:
            self.quantizes = before
