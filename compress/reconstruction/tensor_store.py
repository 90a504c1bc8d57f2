"""Storage of tensors for all examples: in memory up to a limit, then in temporary files."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.lazy_modules import keras
from compress.core.memory_budget import get_current_budget
from compress.model.activations import find_batch_size
from compress.model.keras_internals import get_mask, set_mask
from compress.model.program import Node, Program
from compress.reconstruction.kernel_parts import Array

MAX_BYTES = 2**30
"""Maximum bytes of values held in memory; the memory budget may allow less."""
MEMORY_SHARE = 0.25
"""Share of the free memory for these values."""
CHUNK_BYTES = 64 * 2**20
"""Maximum bytes of the largest tensor that is computed at once."""
MAX_EXAMPLES = 256
"""Maximum number of examples that are run at once."""


def compute_chunk_size(programs: Sequence[Program]) -> int:
    """Return the number of examples to run at once, so that the largest tensor stays small."""
    largest = max(
        math.prod(size or 1 for size in tuple(tensor.shape)[1:]) * 4
        for program in programs
        for node in program.nodes
        for tensor in node.outputs
    )
    max_examples = int(min(MAX_EXAMPLES, max(1, CHUNK_BYTES // largest)))
    return min(find_batch_size(program, max_examples) for program in programs)


class Store:
    """Storage of tensor values in memory and, beyond a limit, in temporary files.

    Args:
        limit: Bytes in memory; more is written to a temporary folder that `close` removes, except
            for tensors below 1 MiB. Default: set by the memory budget.

    Attributes:
        used: Bytes in memory now.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = (
            get_current_budget().compute_share(MEMORY_SHARE, MAX_BYTES) if limit is None else limit
        )
        self.used = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def keep(self, tensor: Any) -> StoredTensor:
        """Store a tensor in memory or in a file."""
        mask = get_mask(tensor)
        size = int(np.prod(tensor.shape)) * tensor.dtype.size
        if self.used + size <= self.limit or size < 2**20:
            value = StoredTensor(tensor, None, mask, tuple(tensor.shape))
            self.used += size
            weakref.finalize(value, self._release, size)
            return value
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="paretune-")
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.bin"
        array = np.asarray(tensor)
        array.tofile(path)
        value = StoredTensor(None, (path, array.dtype, array.shape), mask, array.shape)
        weakref.finalize(value, path.unlink, missing_ok=True)
        return value

    def _release(self, size: int) -> None:
        self.used -= size

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()


class StoredTensor:
    """Value of a tensor for one chunk of examples.

    Attributes:
        mask: Mask of sequences, False where positions are padding; None: there is none.
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
        """Value as a tensor, with its Keras mask if it had one."""
        if self._tensor is not None:
            return self._tensor
        tensor = keras.ops.convert_to_tensor(self.array)
        if self.mask is not None:
            set_mask(tensor, self.mask)
        return tensor

    def with_mask(self, mask: Any) -> StoredTensor:
        """Return the same value with another mask; valid only as long as this object exists."""
        return StoredTensor(self._tensor, self._file, mask, self.blank.shape)

    @property
    def array(self) -> Array:
        """Value as an array, which must not be written to."""
        if self._tensor is not None:
            return np.asarray(self._tensor)
        assert self._file is not None
        path, dtype, shape = self._file
        return np.fromfile(path, dtype).reshape(shape)


Chunks = list[StoredTensor]
"""Values of a tensor for all examples, chunk by chunk."""


def call_in_chunks(node: Node, inputs: Sequence[Chunks], *, store: Store) -> list[Chunks]:
    """Run a call of a program on every chunk and return its outputs.

    Args:
        node: The call.
        inputs: Values of its inputs, chunk by chunk.
        store: Storage of the outputs.
    """
    outputs: list[Chunks] = [[] for _ in node.outputs]
    for parts in zip(*inputs, strict=True):
        results = keras.tree.flatten(node.call([part.tensor for part in parts]))
        for chunks, result in zip(outputs, results, strict=True):
            chunks.append(store.keep(result))
    return outputs
