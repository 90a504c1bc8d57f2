"""What tensors hold for all examples: in memory up to a limit, beyond it in a temporary file."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.memory_budget import current_budget
from compress.model.activations import examples_at_once
from compress.model.internals import mask_of, set_mask
from compress.model.program import Node, Program
from compress.reconstruction.kinds import Array

LIMIT = 3 * 2**30
"""Bytes of values that are held in memory at one time, where the memory budget allows."""
HELD = 0.25
"""Share of what is free that they may take."""
CHUNK = 64 * 2**20
"""Bytes of the largest tensor that are computed at one time."""
MOST = 256
"""Examples that are run at a time."""


def chunk_size(programs: Sequence[Program]) -> int:
    """Return how many examples are run at a time: the largest tensor of all stays small."""
    largest = max(
        math.prod(size or 1 for size in tuple(tensor.shape)[1:]) * 4
        for program in programs
        for node in program.nodes
        for tensor in node.outputs
    )
    most = int(min(MOST, max(1, CHUNK // largest)))
    return min(examples_at_once(program, most) for program in programs)


class Store:
    """Holds what tensors hold.

    Args:
        limit: Bytes in memory; more lies in a folder of its own that `close` removes. Default:
            what the memory budget allows.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = current_budget().share(HELD, LIMIT) if limit is None else limit
        self.used = 0
        self.spilled = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def keep(self, tensor: Any) -> Value:
        """Return a tensor as something that is held."""
        mask = mask_of(tensor)
        size = int(np.prod(tensor.shape)) * tensor.dtype.size
        if self.used + size <= self.limit or size < 2**20:
            value = Value(tensor, None, mask, tuple(tensor.shape))
            self.used += size
            weakref.finalize(value, self._released, size)
            return value
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="paretune-")
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.bin"
        array = np.asarray(tensor)
        array.tofile(path)
        self.spilled += size
        value = Value(None, (path, array.dtype, array.shape), mask, array.shape)
        weakref.finalize(value, path.unlink, missing_ok=True)
        return value

    def _released(self, size: int) -> None:
        self.used -= size

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()


class Value:
    """What a tensor holds for one chunk of examples.

    Attributes:
        mask: Of sequences: False at positions that are padding; None: there are none.
        blank: An array of the same shape that takes no memory.
    """

    def __init__(
        self,
        tensor: Any,
        file: tuple[Path, Any, Any] | None,
        mask: Any,
        shape: tuple[int, ...],
    ) -> None:
        self._tensor = tensor
        self._file = file
        self.mask = mask
        self.blank: Array = np.broadcast_to(np.float32(0), shape)

    @property
    def tensor(self) -> Any:
        """The tensor, with Keras's mask where it had one."""
        if self._tensor is not None:
            return self._tensor
        import keras

        found = keras.ops.convert_to_tensor(self.array)
        if self.mask is not None:
            set_mask(found, self.mask)
        return found

    def masked(self, mask: Any) -> Value:
        """Return the same with another mask, for as long as this one is held."""
        return Value(self._tensor, self._file, mask, self.blank.shape)

    @property
    def array(self) -> Array:
        """The same as an array, for reading."""
        if self._tensor is not None:
            return np.asarray(self._tensor)
        assert self._file is not None
        path, dtype, shape = self._file
        return np.fromfile(path, dtype).reshape(shape)


Chunks = list[Value]
"""A tensor for all examples, chunk by chunk."""


def make_in_chunks(node: Node, given: Sequence[Chunks], *, store: Store) -> list[Chunks]:
    """Make a call of a program for every chunk, and return what it makes, output by output."""
    import keras

    made: list[Chunks] = [[] for _ in node.outputs]
    for parts in zip(*given, strict=True):
        results = keras.tree.flatten(node.call([part.tensor for part in parts]))
        for chunks, result in zip(made, results, strict=True):
            chunks.append(store.keep(result))
    return made
