"""One memory budget for all work: what fits at a time, and what is refused before it begins.

The budget is that of the process and of all processes that it starts, together. It is set once, at
a public entry (`use_budget`), and asked for where examples are taken some at a time
(`current_budget`), as TensorFlow's number of threads is: no signature hands it on.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

from compress.core import linux
from compress.core.device import card_bytes
from compress.core.errors import InputError

MARGIN = 0.9
"""Share of an amount that is planned with: estimates err, and processes that convert come later."""
SHARE = 0.5
"""Share of what is free that one piece of work plans to take: its estimate leaves out what
libraries take beside the tensors, and what is freed is not given back at once."""
UNASKED = 1 / 64
"""Share of the budget up to which work is done without asking what is free."""
UNBOUNDED = 1 << 200
"""Bytes of a machine that does not say what it has."""
LEAST = 500_000_000
"""Bytes that a budget must have: an interpreter with TensorFlow takes about as much."""


@dataclass(frozen=True)
class MemoryBudget:
    """What this process and those that it starts may occupy together.

    Attributes:
        bytes: Of memory.
        given: Whether the user named the amount (`--memory`).
    """

    bytes: int
    given: bool = False

    @classmethod
    def of_machine(cls) -> MemoryBudget:
        """Return what machine and control groups allow, less a margin for what others take."""
        available = linux.available_bytes()
        if available is None:
            return cls(UNBOUNDED)
        return cls(int(MARGIN * (available + linux.family_bytes())))

    def free(self) -> int:
        """Return the bytes that may still be taken, at least 0.

        Of an amount that the user named, what our processes occupy is taken off, models and data
        among it. The system may have less than that: other programs take memory, too.
        """
        self.give_back()
        available = linux.available_bytes()
        free = UNBOUNDED if available is None else int(MARGIN * available)
        if self.given:
            free = min(free, int(MARGIN * self.bytes) - linux.family_bytes())
        return max(0, free)

    def give_back(self) -> None:
        """Give memory back that was freed: it would count as occupied. It takes milliseconds.

        To be called after work that held much, and before other processes begin to work. Where
        nobody named an amount, nothing is done: what is held is used again.
        """
        if self.given:
            linux.trim()

    def batch_size(self, each: int, *, most: int, what: str, fixed: int = 0, least: int = 1) -> int:
        """Return how many examples may be worked on at a time.

        Where the budget does not hold `most`, it is a power of two: a few bytes more or less that
        are occupied should not make another number.

        Args:
            each: Bytes that an example takes meanwhile.
            most: Examples, at least 1.
            what: The work, as errors call it: "predictions of model 'm'".
            fixed: Bytes that it takes whatever the number.
            least: Examples that the work must have at a time, in [1, most].

        Raises:
            InputError: Not even `least` fit; the message names the amount that would do.
        """
        card = card_bytes()
        if card is None and fixed + most * each <= UNASKED * self.bytes:
            return most
        room = self.free() if card is None else card
        fitting = int(SHARE * room - fixed) // max(1, each)
        if fitting >= most:
            return most
        if fitting >= least:
            return max(least, _power_of_two(fitting))
        needed = fixed + least * each
        # what is next to nothing is not refused hours after the work began
        if needed <= max(room, UNASKED * self.bytes):
            return least
        if card is not None:
            raise InputError(
                f"The GPU's memory must hold {gigabytes(needed)} for {what}. Received: "
                f"{gigabytes(card)} that are free. Use --device cpu, or another card."
            )
        raise self.refused(needed, room, what)

    def share(self, part: float, most: int) -> int:
        """Return bytes that work may hold for a while: a part of what is free, at most `most`.

        Below `most` it is a power of two, as numbers of examples are.

        Args:
            part: In (0, 1].
            most: Bytes.
        """
        if most <= UNASKED * self.bytes:
            return most
        held = int(part * self.free())
        return most if held >= most else _power_of_two(held)

    def holds(self, needed: int, part: float) -> bool:
        """Tell whether bytes are at most a part of what is free.

        Args:
            needed: Bytes.
            part: In (0, 1].
        """
        return needed <= UNASKED * self.bytes or needed <= part * self.free()

    def require(self, needed: int, what: str) -> None:
        """Refuse what does not fit into what is free.

        Args:
            needed: Bytes.
            what: It is for, as errors call it.

        Raises:
            InputError: It does not fit; the message names the amount that would do.
        """
        free = self.free()
        if needed > free:
            raise self.refused(needed, free, what)

    def refused(self, needed: int, free: int, what: str) -> InputError:
        """Return the error of work that needs more bytes than are free."""
        planned = MARGIN * self.bytes if self.given else self.bytes
        enough = int((planned - free + needed) / MARGIN)
        rule = f"memory must be at least {gigabytes(enough)} for {what}"
        received = f"Received: {gigabytes(self.bytes)}, of which {gigabytes(free)} are free."
        if self.given and enough <= MemoryBudget.of_machine().bytes:
            return InputError(f"{rule}. {received} Give --memory {gigabytes(enough, '')}.")
        return InputError(f"{rule}. {received} Use a machine with more memory, or smaller inputs.")


def _power_of_two(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)


def require_room(needed: int, what: str) -> None:
    """Refuse what cannot fit into memory, by the size that its header declares.

    Args:
        needed: Bytes.
        what: The thing, as the message begins ("Images of 'photos'").

    Raises:
        InputError: More is needed than there is.
    """
    budget = current_budget()
    room = budget.free()
    if budget.given:  # what is next to nothing is not refused hours after the work began
        room = max(room, int(UNASKED * budget.bytes))
    if needed > room:
        raise InputError(
            f"{what} must fit into memory. Received: {gigabytes(needed)} where {gigabytes(room)} "
            "are free."
        )


def gigabytes(size: int, space: str = " ") -> str:
    """Return a size in GB, rounded up to one decimal: "4.4 GB"."""
    if size >= 1 << 100:  # of sizes that no float holds the order of magnitude is enough
        return f"more than 10^20{space}GB"
    return f"{math.ceil(size / 1e8) / 10:,.1f}{space}GB"


_current: MemoryBudget | None = None


def current_budget() -> MemoryBudget:
    """Return the budget of the work that is being done; without one the machine's."""
    global _current
    if _current is None:
        _current = MemoryBudget.of_machine()
    return _current


@contextlib.contextmanager
def use_budget(memory: int | None) -> Iterator[MemoryBudget]:
    """Let everything that this process does meanwhile keep to a budget.

    Args:
        memory: Bytes; None: the budget that holds already, else the machine's.

    Yields:
        The budget.

    Raises:
        InputError: So little is no budget, or this process occupies more already.

    Example:
        >>> with use_budget(2 * 10**9) as budget:
        ...     current_budget() is budget
        True
    """
    global _current
    before = _current
    if memory is not None:
        occupied = linux.family_bytes()
        if memory < max(LEAST, occupied):
            raise InputError(
                f"memory must be at least {gigabytes(max(LEAST, occupied * 3 // 2))}: this process "
                f"occupies {gigabytes(occupied)} already. Received: {gigabytes(memory)}."
            )
        _current = MemoryBudget(memory, given=True)
    try:
        yield current_budget()
    finally:
        _current = before
