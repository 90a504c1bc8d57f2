"""Channel counts and blocks by the best of several methods, where time and memory allow that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.core.errors import FeasibleError
from compress.core.memory_budget import current_budget, gigabytes
from compress.core.summary import OnProgress
from compress.model.program import Program
from compress.plan import ChannelOptions
from compress.plugins import CRITERIA
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.selection.allowed import TOLERANCE, Selection
from compress.prune.channels.selection.by_output_error import OUTPUT_ERROR, by_damage, refined
from compress.prune.channels.selection.by_rank import select_by_rank
from compress.prune.channels.selection.damage import (
    FEW_EXAMPLES,
    FEW_SAMPLES,
    Judge,
    measure_sensitivity,
)
from compress.prune.channels.selection.sensitivity import SHARES, SensitivityMap
from compress.prune.channels.selection.target import Priced, notes_on
from compress.reconstruction.kinds import has_parts, parts_of
from compress.reconstruction.observing import SAMPLES
from compress.reconstruction.repairing import FEWEST

BELOW = 0.05
"""Share of the target by which a configuration that is compared may cost less."""
LONGEST = 300.0
"""Seconds that a comparison of methods may take by its estimate."""
HELD = 0.5
"""Share of the free memory that its arrays may take."""
RATE = 5e9
"""Floating-point operations a second of the solver, on one core."""
FORWARD = 2.5
"""Forward passes that each example of a reconstruction costs: both models, layer by layer."""
METHODS = 3
"""Number of methods; one configuration of each is reconstructed thoroughly."""
THOROUGH = 4
"""Times as long as a quick reconstruction of as many examples."""


GLOBAL = "l2 over all layers"
RANKED: dict[str, dict[str, Any]] = {
    GLOBAL: {"criterion": "l2", "scope": "global"},
    "uniform channel counts": {"criterion": "reconstruction", "scope": "layer"},
}
"""Methods that do not measure what each layer is worth, by the names that reports call them."""


@dataclass(frozen=True, eq=False)
class Chooser:
    """Chooser of channel counts and blocks, by the method that is best for a model.

    Attributes:
        coupling: Of the model.
        options: Steps, floors, limits, blocks, tries.
        judge: Reconstructs and evaluates configurations.
        context: Data and what criteria see.
        sensitivity: Output errors of groups and blocks; None: they were not measured.
        method: How channel counts are chosen: by output error, or one of `RANKED`.
        notes: What the user should know of the choice.
    """

    coupling: Coupling
    options: ChannelOptions
    judge: Judge
    context: Context
    sensitivity: SensitivityMap | None
    method: str = OUTPUT_ERROR
    notes: tuple[str, ...] = ()

    @classmethod
    def measured(
        cls,
        coupling: Coupling,
        options: ChannelOptions,
        criterion: Criterion,
        context: Context,
        on_progress: OnProgress | None = None,
        sensitivity: SensitivityMap | None = None,
    ) -> Chooser:
        """Measure the output errors of groups and blocks.

        Where methods are compared and that takes too long or too much memory, nothing is
        measured, and the chooser ranks by l2 over all layers.

        Args:
            coupling: Of the model, whose weights are as before when this returns.
            options: With scope damage, or auto.
            criterion: Chooses units within a group.
            context: Data and what the criterion sees.
            on_progress: Called with (text, share that is done).
            sensitivity: Measured before, with the same criterion and context.

        Raises:
            InputError: There are no data.
        """
        judge = Judge(coupling, context)
        if options.compares:
            effort = estimate_effort(coupling, options, judge)
            few = (
                f"methods were not compared: that takes at least {2 * FEWEST} examples, and there "
                f"are {judge.examples}; channels are ranked by l2 over all layers"
            )
            refusal = effort.refusal if sensitivity is None else ""
            reason = refusal if judge.holds_back else few
            if reason:
                return cls(coupling, options, judge, context, None, GLOBAL, (reason,))
            options = replace(options, tries=effort.affordable(options.tries))
        if sensitivity is None:
            sensitivity = measure_sensitivity(
                coupling, context, criterion, judge, blocks=options.blocks, on_progress=on_progress
            )
        else:
            context.notes += sensitivity.notes
            context.know(criterion, [np.array(group.scores) for group in sensitivity.groups])
            sensitivity = replace(sensitivity, blocks=sensitivity.blocks if options.blocks else ())
        return cls(coupling, options, judge, context, sensitivity)

    def refined(
        self, target: float, own: Priced | None = None, on_progress: OnProgress | None = None
    ) -> Chooser:
        """Evaluate configurations near a target, and return a chooser that knows the best.

        Args:
            target: What the cost comes to.
            own: See `choose`.
            on_progress: Called with (text, share that is done).

        Returns:
            One whose output errors, or whose method, lead to the best of them, here and at costs
            nearby; this one where the options try none.
        """
        if self.sensitivity is None or not (self.options.tries or self.options.compares):
            return self
        best = refined(
            self.sensitivity,
            lambda scaled: by_damage(self.coupling, self.options, scaled, target, own),
            self.judge,
            self.options.tries,
            self.context.seed,
            on_progress,
        )
        notes = (best.note(),) if best.tried else ()
        found = replace(self, sensitivity=best.sensitivity, notes=notes)
        if not self.options.compares:
            return found
        return found._compared(best.found, target, own)

    def _compared(self, found: Selection, target: float, own: Priced | None) -> Chooser:
        """Return a chooser with the method whose configuration has the least output error.

        Args:
            found: The configuration chosen by output error.
            target, own: See `choose`.
        """
        choices, unmet = {OUTPUT_ERROR: found}, []
        for method in RANKED:
            try:
                choices[method] = self._ranked(method, target, own)
            except FeasibleError:
                unmet.append(method)
        # what costs more than the target has an advantage; what costs far less wastes the budget
        errors = {method: item.choice.error for method, item in choices.items()}
        nearest = min(abs(error) for error in errors.values())
        low, high = -max(BELOW, nearest), max(TOLERANCE, nearest)
        unmet += [method for method, error in errors.items() if not low <= error <= high]
        damages = {
            method: self.judge.damage(item.mask, item.dropped, thorough=True)
            for method, item in choices.items()
            if method not in unmet
        }
        best = min(damages, key=lambda method: damages[method])
        note = f"divergence from the original on {len(self.judge.judged[0])} held-back examples: "
        note += ", ".join(f"{method} {value:.3g}" for method, value in damages.items())
        if unmet:
            note += f"; not compared, because they miss the target: {', '.join(unmet)}"
        earlier = self.notes if best == OUTPUT_ERROR else ()
        return replace(self, method=best, notes=(*earlier, note))

    def choose(self, target: float, own: Priced | None = None) -> Selection:
        """Choose channel counts and blocks for a target.

        Args:
            target: What the cost comes to.
            own: What kept units and present blocks cost; default: what the options count.

        Raises:
            FeasibleError: The target is below what is feasible.
        """
        if self.method != OUTPUT_ERROR:
            selection = self._ranked(self.method, target, own)
            return replace(selection, notes=(*self.notes, *selection.notes), method=self.method)
        assert self.sensitivity is not None, "without a method, output errors were measured"
        found = by_damage(self.coupling, self.options, self.sensitivity, target, own)
        removed = (f"block '{block.name}' was removed" for block in found.dropped)
        missed = notes_on(self.coupling, self.options, found, target, own)
        return replace(found, notes=(*removed, *self.notes, *missed))

    def tempered(self, power: float) -> Chooser:
        """Return one that chooses by output errors to a power, where they were measured."""
        if self.sensitivity is None:
            return self
        return replace(
            self, sensitivity=self.sensitivity.tempered(power), method=OUTPUT_ERROR, notes=()
        )

    def _ranked(self, method: str, target: float, own: Priced | None) -> Selection:
        options = replace(self.options, blocks=False, **RANKED[method])
        criterion = CRITERIA[options.criterion]
        return select_by_rank(self.coupling, options, criterion, self.context, target, own)


@dataclass(frozen=True)
class Effort:
    """Time and memory of a comparison of methods.

    Attributes:
        seconds: Estimated, without neighbouring configurations.
        trial_seconds: Of one configuration that is reconstructed and evaluated.
        bytes: Of second moments and of kernels that are tried.
    """

    seconds: float
    trial_seconds: float
    bytes: int

    def affordable(self, tries: int) -> int:
        """Return the neighbouring configurations that the time allows, at most `tries`."""
        return max(0, min(tries, int((LONGEST - self.seconds) / max(self.trial_seconds, 1e-9))))

    @property
    def refusal(self) -> str:
        """Why methods are not compared; empty: they are."""
        if not current_budget().holds(self.bytes, HELD):
            return (
                f"output errors were not measured, because that takes {gigabytes(self.bytes)} of "
                "memory (estimated), more than half of what is free: channels are ranked by l2 "
                "over all layers"
            )
        if self.seconds > LONGEST:
            return (
                f"output errors were not measured, because that takes about "
                f"{self.seconds / 60:.0f} minutes (estimated), more than {LONGEST / 60:.0f}: "
                "channels are ranked by l2 over all layers; --channel-scope damage measures them"
            )
        return ""


def estimate_effort(coupling: Coupling, options: ChannelOptions, judge: Judge) -> Effort:
    """Estimate what measuring output errors takes, from one forward pass and the layers' sizes.

    Args:
        coupling: Of the model.
        options: Whether blocks are tried.
        judge: Of the same model and data.
    """
    forward = judge.time_example()
    kernels = _kernel_shapes(judge.program)
    count, judged = judge.examples, len(judge.judged[0])
    trials = sum(min(len(SHARES), len(group.units) - 1) for group in coupling.groups)
    squares = sum(systems * columns**2 for systems, columns, _ in kernels)
    cubes = sum(systems * columns**3 for systems, columns, _ in kernels)
    solving = (2 * FEW_SAMPLES * squares + 2 * cubes) / RATE
    each = forward * (FORWARD * min(FEW_EXAMPLES, count) + judged) + solving
    observing = forward * count + (2 * SAMPLES * squares + 4 * cubes) / RATE
    trying = forward * judged * trials / 2
    blocks = len(blocks_of(coupling)) if options.blocks else 0
    # a covariance and its inverse stand beside the second moments
    held = sum(24 * columns**2 for systems, columns, _ in kernels if systems == 1)
    tried = 12 * len(SHARES) * sum(columns * outputs for _, columns, outputs in kernels)
    # the configuration of least damage, and each without one block
    quick = (1 + blocks) * each
    thorough = METHODS * THOROUGH * each * max(1.0, (count - judged) / FEW_EXAMPLES)
    return Effort(observing + trying + quick + thorough, each, int(held + tried))


def _kernel_shapes(program: Program) -> list[tuple[int, int, int]]:
    """Return (systems, columns, outputs) of each kernel that least squares can solve."""
    found = {}
    for node in program.nodes:
        if not has_parts(node.operation):
            continue
        parts, _ = parts_of(node.operation, len(node.inputs[0].shape))
        for part in parts:
            shape = part.matrix(np.empty(tuple(part.kernel.shape), np.int8)).shape
            found[id(part.kernel)] = (int(shape[0]), int(shape[1]), int(shape[2]))
    return list(found.values())
