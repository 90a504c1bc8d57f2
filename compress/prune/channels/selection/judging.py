"""Thinner models, all layers repaired on a few examples, judged by their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from compress.core.columns import taken
from compress.core.errors import InputError
from compress.data import drawn_inputs
from compress.measure.divergence import divergence
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

JUDGED = 500
"""Examples on which outputs are compared."""
FEW_EXAMPLES = 300
FEW_SAMPLES = 4000
"""Of a repair that tells what a thinner model is worth."""


class Judge:
    """Repairs thinner models on a few examples and compares their outputs.

    Args:
        coupling: Of the model.
        context: Data, and the seed of what is drawn of them.

    Raises:
        InputError: There are no data, or they do not fit the model.

    Attributes:
        program: Of the model, flat.
        judged: Inputs on which outputs are compared.
    """

    def __init__(self, coupling: Coupling, context: Context) -> None:
        if context.data is None:
            raise InputError("Channel scope 'damage' must have data to look at. Give data=.")
        self.program = flat(record(coupling.program.model, opens))
        self.coupling, self.seed = coupling, context.seed
        self.x = drawn_inputs(context.data, context.examples, context.seed)
        model = coupling.program.model
        self.judged: list[npt.NDArray[Any]] = listed(model, taken(self.x, slice(JUDGED)))
        self._wanted = outputs_of(self.program, self.judged)

    def damage(self, mask: Mask, blocks: Sequence[Block] = ()) -> float:
        """Returns how far the outputs are when only this is kept, all layers repaired.

        Args:
            mask: Kept units.
            blocks: That leave.
        """
        small = sliced_model(self.coupling, mask, blocks)
        repair(
            small,
            self.coupling.program.model,
            self.x,
            kept=kept_indices(self.coupling, mask, blocks),
            examples=FEW_EXAMPLES,
            samples=FEW_SAMPLES,
            joint=False,
            seed=self.seed,
        )
        return divergence(self._wanted, outputs_of(record(small), self.judged))
