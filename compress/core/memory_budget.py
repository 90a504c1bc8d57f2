"""Memory budget of this process and all processes that it starts.

The budget limits the number of examples per batch, and rejects work that cannot fit before it
begins. It is set once at a public entry point (`use_budget`) and read where batches are formed
(`get_current_budget`). Like TensorFlow's number of threads it is global state, so that it need not
be passed through all functions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

from compress.core import linux
from compress.core.device import measure_free_gpu_bytes
from compress.core.errors import InputError

MARGIN = 0.9
"""Usable share of the memory: estimates are inexact, and converters start processes later."""
WORK_SHARE = 0.5
"""Share of the free memory that one task may plan with: its estimate does not include memory that
libraries allocate besides the tensors, and freed memory is not returned at once."""
UNCHECKED_SHARE = 1 / 64
"""Share of the budget up to which the free memory is not measured."""
UNBOUNDED_BYTES = 1 << 200
"""Budget of a machine with unknown memory, in bytes."""
MIN_BUDGET_BYTES = 500_000_000
"""Minimum budget in bytes: about the size of an interpreter with TensorFlow."""


@dataclass(frozen=True)
class MemoryBudget:
    """Memory limit of this process and the processes that it starts, together.

    Attributes:
        bytes: The limit in bytes.
        is_user_set: Whether the user set it (`--memory`).
    """

    bytes: int
    is_user_set: bool = False

    @classmethod
    def from_machine(cls) -> MemoryBudget:
        """Return the budget that the machine and its control groups allow, with a safety margin."""
        available = linux.measure_available_bytes()
        if available is None:
            return cls(UNBOUNDED_BYTES)
        return cls(int(MARGIN * (available + linux.measure_tree_bytes())))

    def measure_free_bytes(self) -> int:
        """Return the bytes that may still be allocated, at least 0.

        The memory of our processes, including models and data, is subtracted from a limit set by
        the user. The result is lower if the system has less memory available, because other
        programs use it.
        """
        self.release_freed_memory()
        available = linux.measure_available_bytes()
        free = UNBOUNDED_BYTES if available is None else int(MARGIN * available)
        if self.is_user_set:
            free = min(free, int(MARGIN * self.bytes) - linux.measure_tree_bytes())
        return max(0, free)

    def release_freed_memory(self) -> None:
        """Return freed memory to the system, so that it no longer counts as used.

        Call this after work that used much memory, and before other processes begin to work. It
        takes milliseconds. It does nothing unless the user set a limit, because held memory is
        reused.
        """
        if self.is_user_set:
            linux.trim_memory()

    def find_batch_size(
        self,
        example_bytes: int,
        *,
        max_examples: int,
        purpose: str,
        fixed_bytes: int = 0,
        min_examples: int = 1,
    ) -> int:
        """Return the number of examples that fit into the free memory at a time.

        On a GPU its free memory counts, not the budget. If `max_examples` do not fit, the result is
        a power of two, so that small changes of the used memory do not change it, or
        `min_examples`.

        Args:
            example_bytes: Bytes that one example takes.
            max_examples: Upper limit of the result, at least 1.
            purpose: The purpose, for error messages: "predictions of model 'm'".
            fixed_bytes: Bytes that are needed for any number of examples.
            min_examples: Smallest valid number of examples, in [1, max_examples].

        Raises:
            InputError: Not even `min_examples` fit; the message names the required amount.
        """
        gpu_bytes = measure_free_gpu_bytes()
        if (
            gpu_bytes is None
            and fixed_bytes + max_examples * example_bytes <= UNCHECKED_SHARE * self.bytes
        ):
            return max_examples
        free_bytes = self.measure_free_bytes() if gpu_bytes is None else gpu_bytes
        fitting = int(WORK_SHARE * free_bytes - fixed_bytes) // max(1, example_bytes)
        if fitting >= max_examples:
            return max_examples
        if fitting >= min_examples:
            return max(min_examples, round_to_power(fitting))
        needed = fixed_bytes + min_examples * example_bytes
        # a tiny request must not end work that has run for hours
        if needed <= max(free_bytes, UNCHECKED_SHARE * self.bytes):
            return min_examples
        if gpu_bytes is not None:
            raise InputError(
                f"The GPU's memory must hold {format_gigabytes(needed)} for {purpose}. Received: "
                f"{format_gigabytes(gpu_bytes)} that are free. Use --device cpu, or another card."
            )
        raise self.build_error(needed, free_bytes, purpose)

    def compute_share(self, share: float, max_bytes: int) -> int:
        """Return the bytes that a buffer may hold: a share of the free memory, at most `max_bytes`.

        A result below `max_bytes` is a power of two, like numbers of examples.

        Args:
            share: Share of the free memory, in (0, 1].
            max_bytes: Upper limit in bytes.
        """
        if max_bytes <= UNCHECKED_SHARE * self.bytes:
            return max_bytes
        share_bytes = int(share * self.measure_free_bytes())
        return max_bytes if share_bytes >= max_bytes else round_to_power(share_bytes)

    def can_hold(self, needed: int, share: float) -> bool:
        """Return whether a number of bytes is within a share of the free memory.

        Args:
            needed: Bytes.
            share: Share of the free memory, in (0, 1].
        """
        return needed <= UNCHECKED_SHARE * self.bytes or needed <= share * self.measure_free_bytes()

    def require(self, needed: int, purpose: str) -> None:
        """Raise an error if memory does not fit into the free memory.

        Args:
            needed: Bytes.
            purpose: The purpose, for the error message.

        Raises:
            InputError: It does not fit; the message names the required amount.
        """
        free = self.measure_free_bytes()
        if needed > free:
            raise self.build_error(needed, free, purpose)

    def build_error(self, needed: int, free: int, purpose: str) -> InputError:
        """Return the error for work that needs more bytes than are free.

        Args:
            needed: Required bytes.
            free: Free bytes.
            purpose: The purpose, for the error message.
        """
        planned = MARGIN * self.bytes if self.is_user_set else self.bytes
        enough = int((planned - free + needed) / MARGIN)
        rule = f"memory must be at least {format_gigabytes(enough)} for {purpose}"
        received = (
            f"Received: {format_gigabytes(self.bytes)}, of which {format_gigabytes(free)} are free."
        )
        if self.is_user_set and enough <= MemoryBudget.from_machine().bytes:
            return InputError(f"{rule}. {received} Give --memory {format_gigabytes(enough, '')}.")
        return InputError(f"{rule}. {received} Use a machine with more memory, or smaller inputs.")


def round_to_power(number: int) -> int:
    """Return the largest power of two that is not above a number, at least 1."""
    return 1 << max(0, number.bit_length() - 1)


def require_memory(needed: int, description: str) -> None:
    """Raise an error if data cannot fit into memory, by the size declared in its header.

    Args:
        needed: Bytes.
        description: The data, as the message begins ("Images of 'photos'").

    Raises:
        InputError: More memory is needed than is free.
    """
    budget = get_current_budget()
    free_bytes = budget.measure_free_bytes()
    if budget.is_user_set:  # a tiny request must not end work that has run for hours
        free_bytes = max(free_bytes, int(UNCHECKED_SHARE * budget.bytes))
    if needed > free_bytes:
        raise InputError(
            f"{description} must fit into memory. Received: {format_gigabytes(needed)} where "
            f"{format_gigabytes(free_bytes)} "
            "are free."
        )


def format_gigabytes(size: int, space: str = " ") -> str:
    """Return a size in GB, rounded up to one decimal: "4.4 GB".

    Args:
        size: Size in bytes.
        space: Text between the number and the unit.
    """
    if size >= 1 << 100:  # no float holds such sizes
        return f"more than 10^20{space}GB"
    return f"{math.ceil(size / 1e8) / 10:,.1f}{space}GB"


_current: MemoryBudget | None = None


def get_current_budget() -> MemoryBudget:
    """Return the budget of the current work; by default that of the machine."""
    global _current
    if _current is None:
        _current = MemoryBudget.from_machine()
    return _current


@contextlib.contextmanager
def use_budget(memory: int | None) -> Iterator[MemoryBudget]:
    """Set the memory budget of this process within the context.

    Args:
        memory: Bytes. None keeps the current budget, by default that of the machine.

    Yields:
        The budget.

    Raises:
        InputError: The budget is too small, or below the memory that this process already uses.

    Example:
        >>> with use_budget(2 * 10**9) as budget:
        ...     get_current_budget() is budget
        True
    """
    global _current
    previous = _current
    if memory is not None:
        occupied = linux.measure_tree_bytes()
        if memory < max(MIN_BUDGET_BYTES, occupied):
            raise InputError(
                "memory must be at least "
                f"{format_gigabytes(max(MIN_BUDGET_BYTES, occupied * 3 // 2))}: this process "
                f"occupies {format_gigabytes(occupied)} already. Received: "
                f"{format_gigabytes(memory)}."
            )
        _current = MemoryBudget(memory, is_user_set=True)
    try:
        yield get_current_budget()
    finally:
        _current = previous
