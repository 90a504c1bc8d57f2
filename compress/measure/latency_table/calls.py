"""Calls on their way to be timed: each a small model, then a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.errors import InputError, RunFailed
from compress.core.memory_budget import current_budget
from compress.measure.counting import count_macs
from compress.measure.latency_table.key import CallKey
from compress.measure.latency_table.record import CallTime
from compress.measure.runtimes import RUNTIMES
from compress.model.activations import activation_bytes

AT_ONCE = 256
BYTES_AT_ONCE = 2**28
"""Calls in one conversion, and bytes of their weights: files are timed while all are in memory."""
CONVERTED = 1 / 16
"""Share of what is free that these weights may take: a conversion makes many copies of them."""
TIMED = 1 / 4
"""Share of what is free that the inputs and outputs of the timed files may take."""


@dataclass(eq=False)
class CallItem:
    """One call on its way: its model, then its file, or why there is none.

    Attributes:
        key: Of the call.
        model: Of the call alone; None where there is none, or it is needed no more.
        ops: MACs and elementwise operations.
        weight_bytes: Of its weights, as float32.
        activations: Bytes of its inputs and outputs.
        reason: Why it cannot be timed; empty: nothing is known against it.
        file: Of the model.
    """

    key: CallKey
    model: Any
    ops: int = 0
    weight_bytes: int = 0
    activations: int = 0
    reason: str = ""
    file: Path | None = None

    @classmethod
    def made(cls, key: CallKey, make: Callable[[], Any]) -> CallItem:
        """Makes the model of a call; one that cannot be timed gets the reason in its place."""
        try:
            model = make()
            costs = count_macs(model)
        except InputError as error:
            return cls(key, None, reason=str(error))
        found = cls(
            key, model, costs.macs + costs.other_ops, 4 * costs.params,
            activation_bytes(model).total,
        )  # fmt: skip
        kinds = [str(tensor.dtype) for tensor in model.inputs if "float" not in str(tensor.dtype)]
        if kinds:
            found.model = None
            found.reason = f"it takes {kinds[0]}, and only real numbers are drawn for inputs"
        return found

    def place(self, found: Path | str, runtime: str, threads: int) -> None:
        """Takes the file, if the runtime runs it; the model is needed no more."""
        self.model = None
        if isinstance(found, str):
            self.reason = found
            return
        try:
            session = RUNTIMES[runtime].prepare(found, threads)
            session.set_inputs([np.zeros(info.shape) for info in session.inputs])
            session.invoke()
        except (InputError, RuntimeError, ValueError) as error:
            self.reason = f"{runtime} does not run it alone: {' '.join(str(error).split())}"
            return
        self.file = found


def batches(models: Mapping[CallKey, Callable[[], Any]]) -> Iterator[list[CallItem]]:
    """Yields calls with their models, few enough to be in memory together.

    Args:
        models: Makes a small model of each call alone.
    """
    batch: list[CallItem] = []
    held = live = 0
    budget = current_budget()
    weights, activations = budget.share(CONVERTED, BYTES_AT_ONCE), TIMED * budget.free()
    for key, make in models.items():
        item = CallItem.made(key, make)
        full = held + item.weight_bytes > weights or live + item.activations > activations
        if batch and (len(batch) == AT_ONCE or full):
            yield batch
            batch, held, live = [], 0, 0
        batch.append(item)
        held += item.weight_bytes
        live += item.activations
    yield batch


def empty_model() -> Any:
    """Returns the model of one operation on one number."""
    import keras

    inputs = keras.Input((1,))
    return keras.Model(inputs, keras.layers.Activation("tanh")(inputs))


def estimated(calls: list[CallTime]) -> tuple[CallTime, ...]:
    """Fills in the times of calls that were not measured, by their operations.

    Raises:
        RunFailed: None was measured.
    """
    measured = [call for call in calls if call.measured]
    if not measured:
        raise RunFailed(f"No call could be measured: {calls[0].key}: {calls[0].reason}")
    ops = sum(call.ops for call in measured)
    rate = sum(call.ms for call in measured) / ops if ops else 0.0
    return tuple(call if call.measured else replace(call, ms=rate * call.ops) for call in calls)
