"""How often a loop runs, where its graph says it: counters that go up to a limit."""

from __future__ import annotations

import math

from compress.measure.graph_files.records import Graph, Operator, Tensor

_PASSES = ("identity", "dequantize", "cast")


def rounds(loop: Operator) -> int | None:
    """Returns how many rounds a loop takes; None: that depends on values.

    Known is a condition "counter < limit", or several of them joined by "and", whose counters
    begin at constants, grow by constants, and whose limits are constants.

    Args:
        loop: An operator with a condition and a body.
    """
    if loop.condition is None or len(loop.bodies) != 1 or len(loop.condition.outputs) != 1:
        return None
    return _Loop(loop, loop.condition, loop.bodies[0]).rounds(loop.condition.outputs[0])


def is_carried(body: Graph, place: int) -> bool:
    """Tells whether a loop's body hands an input on as it is."""
    makers = body.makers()
    return _source(body.outputs[place], makers) is body.inputs[place]


def _source(tensor: Tensor, makers: dict[int, Operator]) -> Tensor:
    """Returns what a tensor is a copy of."""
    while (maker := makers.get(id(tensor))) is not None and _word(maker) in _PASSES:
        (tensor,) = maker.given[:1]
    return tensor


def _word(operator: Operator) -> str:
    """Returns one spelling for LOGICAL_AND and LogicalAnd."""
    return operator.kind.replace("_", "").lower()


class _Loop:
    """A loop that is looked at."""

    def __init__(self, loop: Operator, condition: Graph, body: Graph) -> None:
        self._inputs, self._body = loop.inputs, body
        self._condition = condition
        self._makers, self._made = condition.makers(), body.makers()

    def rounds(self, tensor: Tensor) -> int | None:
        maker = self._makers.get(id(_source(tensor, self._makers)))
        if maker is None:
            return None
        if _word(maker) == "logicaland":
            parts = [self.rounds(part) for part in maker.given]
            return None if None in parts else min(part for part in parts if part is not None)
        if _word(maker) in ("less", "lessequal"):
            return self._counted(*maker.given, also=_word(maker) == "lessequal")
        return None

    def _counted(self, counter: Tensor, limit: Tensor, *, also: bool) -> int | None:
        """Returns the rounds until a counter reaches its limit."""
        place, last = self._place(counter), self._number(limit)
        if place is None or last is None:
            return None
        first, step = self._first(place), self._step(place)
        if first is None or step is None or step <= 0:
            return None
        count = (last - first) / step
        return max(0, math.floor(count) + 1 if also else math.ceil(count))

    def _place(self, tensor: Tensor) -> int | None:
        source = _source(tensor, self._makers)
        found = [i for i, given in enumerate(self._condition.inputs) if given is source]
        return found[0] if found else None

    def _first(self, place: int) -> float | None:
        given = self._inputs[place]
        return None if given is None else given.number

    def _number(self, tensor: Tensor) -> float | None:
        """Returns a limit: a constant, or an input that stays what it was at first."""
        source = _source(tensor, self._makers)
        if source.number is not None:
            return source.number
        place = self._place(source)
        if place is None or not is_carried(self._body, place):
            return None
        return self._first(place)

    def _step(self, place: int) -> float | None:
        """Returns what each round adds to a counter."""
        maker = self._made.get(id(_source(self._body.outputs[place], self._made)))
        if maker is None or _word(maker) not in ("add", "addv2") or len(maker.given) != 2:
            return None
        one, other = (_source(tensor, self._made) for tensor in maker.given)
        if other is self._body.inputs[place]:
            one, other = other, one
        return other.number if one is self._body.inputs[place] else None
