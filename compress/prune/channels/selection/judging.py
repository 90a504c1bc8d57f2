"""Thinner models, all layers reconstructed on a few examples, evaluated by their outputs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy.typing as npt

from compress.core.columns import taken
from compress.core.errors import InputError
from compress.data import drawn_inputs
from compress.measure.quality import divergence
from compress.model.activations import outputs_of
from compress.model.flattening import flat
from compress.model.ports import listed
from compress.model.recording import record
from compress.prune.channels.coupling.blocks import Block
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.criteria import Context
from compress.prune.channels.surgery import kept_indices, sliced_model
from compress.reconstruction import repair
from compress.reconstruction.matching import opens
from compress.reconstruction.repairing import FEWEST

JUDGED = 500
"""Examples on which outputs are compared, at most; at most half of all."""
FEW_EXAMPLES = 300
FEW_SAMPLES = 4000
QUICK: dict[str, Any] = {"examples": FEW_EXAMPLES, "samples": FEW_SAMPLES, "joint": False}
"""Of a reconstruction that tells what a thinner model is worth."""
TIMED = 64
"""Examples that a forward pass is timed on."""


class Judge:
    """Reconstructs thinner models on a few examples and compares their outputs on others.

    Args:
        coupling: Of the model.
        context: Data, and the seed of what is drawn of them.

    Raises:
        InputError: There are no data, or they do not fit the model.

    Attributes:
        program: Of the model, flat.
        examples: How many there are in all.
        holds_back: Whether they are enough to hold some back from reconstruction.
        judged: Inputs on which outputs are compared, held back where that is so.
    """

    def __init__(self, coupling: Coupling, context: Context) -> None:
        if context.data is None:
            raise InputError("Channel scope 'damage' must have data to look at. Give data=.")
        self.program = flat(record(coupling.program.model, opens))
        self.coupling, self.seed = coupling, context.seed
        self.examples = min(context.examples, len(context.data.train))
        x = drawn_inputs(context.data, context.examples, context.seed)
        held = min(JUDGED, self.examples // 2)
        self.holds_back = held >= FEWEST
        model = coupling.program.model
        self.judged: list[npt.NDArray[Any]] = listed(
            model, taken(x, slice(held) if self.holds_back else slice(JUDGED))
        )
        self.x = taken(x, slice(held, None)) if self.holds_back else x

    @cached_property
    def _wanted(self) -> list[npt.NDArray[Any]]:
        return outputs_of(self.program, self.judged)

    def time_example(self) -> float:
        """Return the seconds that a forward pass of one example takes, among others."""
        few = [x[:TIMED] for x in self.judged]
        outputs_of(self.program, few)  # the first pass builds what later ones use again
        began = time.perf_counter()
        outputs_of(self.program, few)
        return (time.perf_counter() - began) / len(few[0])

    def damage(self, mask: Mask, blocks: Sequence[Block] = (), *, thorough: bool = False) -> float:
        """Return how far the outputs are when only this is kept, all layers reconstructed.

        Args:
            mask: Kept units.
            blocks: That are removed.
            thorough: Reconstruct as the model that is kept will be, on all examples that are not
                held back; else on few, which tells neighbouring configurations apart.
        """
        small = sliced_model(self.coupling, mask, blocks)
        repair(
            small,
            self.coupling.program.model,
            self.x,
            kept=kept_indices(self.coupling, mask, blocks),
            seed=self.seed,
            **({} if thorough else QUICK),
        )
        return divergence(self._wanted, outputs_of(record(small), self.judged))
