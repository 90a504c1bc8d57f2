"""Channel selection by the best of several methods, if time and memory allow a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.core.errors import FeasibleError
from compress.core.linux import keep_freed_memory
from compress.core.memory_budget import format_gigabytes, get_current_budget
from compress.core.summary import OnProgress, ignore_progress
from compress.model.program import Program
from compress.plan import ChannelOptions
from compress.plugins import CRITERIA
from compress.prune.channels.coupling.blocks import list_blocks
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.selection.allowed_counts import (
    TOLERANCE,
    Selection,
    list_rounding_steps,
)
from compress.prune.channels.selection.output_error import (
    QUICK_EXAMPLES,
    QUICK_SAMPLES,
    ErrorEvaluator,
    measure_sensitivity,
)
from compress.prune.channels.selection.output_error_selection import (
    OUTPUT_ERROR,
    Refinement,
    refine_allocation,
    select_by_output_error,
)
from compress.prune.channels.selection.rank_selection import select_by_rank
from compress.prune.channels.selection.sensitivity import SHARES, SensitivityMap
from compress.prune.channels.selection.target import CostFunction, list_notes
from compress.reconstruction.kernel_parts import build_parts, has_parts
from compress.reconstruction.repairing import MIN_EXAMPLES
from compress.reconstruction.sampling import count_samples

MAX_UNDERSHOOT = 0.05
"""Share of the target by which a compared configuration may cost less."""
LONGEST = 300.0
"""Maximum estimated time of a comparison of methods, in seconds."""
FINER_GAIN = 0.8
"""Share of the output error of the coarsest rounding step below which the finest one is preferred:
a ResNet-20 of fine steps was 1.25 times slower at the same MACs."""
CLOSE = 1.25
"""Methods whose output error after a quick reconstruction is at most this many times the least are
reconstructed as the final model will be."""
EQUAL = 1e-7
"""Output error up to which outputs count as equal; rounding may even make it negative."""
MEMORY_SHARE = 0.5
"""Maximum share of the free memory for the arrays of a comparison."""
LONGEST_WITH_TRIES = 120.0
"""Estimated time up to which close methods are reconstructed thoroughly and neighbouring
configurations are tried, in seconds."""
SOLVER_FLOPS = 2e10
"""Floating-point operations per second of the solver on one core."""
FORWARD_PASSES = 1.5
"""Forward passes for each example of a reconstruction; the original model runs only once."""
BUILDING_PASSES = 8
"""Time to build and prepare a pruned model, in forward passes of no examples."""
METHODS, CLOSE_METHODS = 3, 2
"""Numbers of methods, and of those that are usually reconstructed thoroughly, too."""
THOROUGH_FACTOR = 3
"""Time of a thorough reconstruction relative to a quick one with as many examples."""


GLOBAL = "l2 over all layers"
RANKING_METHODS: dict[str, dict[str, Any]] = {
    GLOBAL: {"criterion": "l2", "scope": "global"},
    "uniform channel counts": {"criterion": "reconstruction", "scope": "layer"},
}
"""Options of the methods that do not measure output errors, by the methods' names in reports."""


@dataclass(frozen=True, eq=False)
class ChannelSelector:
    """Selector of channel counts and blocks by the best method for a model.

    Attributes:
        coupling: Coupling of the model.
        options: Rounding, floors, excluded layers, blocks and tries.
        evaluator: Evaluator that reconstructs and evaluates configurations.
        context: Data and context of criteria.
        sensitivity: Output errors of groups and blocks; None: they were not measured.
        method: Selection method: by output error, or one of `RANKING_METHODS`.
        notes: Notes for the user.
        is_thorough: Whether methods with close output errors are reconstructed as the final model
            will be, and compared again.
    """

    coupling: Coupling
    options: ChannelOptions
    evaluator: ErrorEvaluator
    context: Context
    sensitivity: SensitivityMap | None
    method: str = OUTPUT_ERROR
    notes: tuple[str, ...] = ()
    is_thorough: bool = True

    @classmethod
    @keep_freed_memory()
    def from_measurement(
        cls,
        coupling: Coupling,
        options: ChannelOptions,
        criterion: Criterion,
        context: Context,
        on_progress: OnProgress | None = None,
        sensitivity: SensitivityMap | None = None,
    ) -> ChannelSelector:
        """Return a selector after measuring the output errors of groups and blocks.

        If methods should be compared, but there are too few examples or it would take too much time
        or memory, nothing is measured, and the selector ranks by l2 over all layers.

        Args:
            coupling: Coupling of the model; the model's weights are restored on return.
            options: Options with a selection by output error or by comparison.
            criterion: Criterion that orders the units of a group.
            context: Data and context of the criterion.
            on_progress: Called with (text, completed share).
            sensitivity: Earlier measurement with the same criterion and context.

        Raises:
            InputError: There is no data.
        """
        evaluator, is_thorough = ErrorEvaluator(coupling, context), True
        if options.should_compare:
            effort = estimate_effort(coupling, options, evaluator)
            too_few = (
                f"methods were not compared: that takes at least {2 * MIN_EXAMPLES} examples, and "
                f"there are {evaluator.example_count}; channels are ranked by l2 over all layers"
            )
            refusal = effort.refusal if sensitivity is None else ""
            reason = refusal if evaluator.has_holdout else too_few
            if reason:
                return cls(coupling, options, evaluator, context, None, GLOBAL, (reason,))
            options = replace(options, tries=effort.limit_tries(options.tries))
            is_thorough = effort.allows_thorough
        if sensitivity is None:
            sensitivity = measure_sensitivity(
                coupling,
                context,
                criterion,
                evaluator,
                blocks=options.blocks,
                on_progress=on_progress,
            )
        else:
            context.notes += sensitivity.notes
            context.cache_scores(
                criterion, [np.array(group.scores) for group in sensitivity.groups]
            )
            sensitivity = replace(sensitivity, blocks=sensitivity.blocks if options.blocks else ())
        return cls(
            coupling, options, evaluator, context, sensitivity, is_thorough=is_thorough
        )  # fmt: skip

    @keep_freed_memory()
    def refine(
        self,
        target: float,
        custom_cost: CostFunction | None = None,
        on_progress: OnProgress | None = None,
    ) -> ChannelSelector:
        """Evaluate configurations near a target, and return a selector for the best one.

        Args:
            target: Cost to reach.
            custom_cost: See `select`.
            on_progress: Called with (text, completed share).

        Returns:
            A selector whose output errors or method lead to the best configuration, for this and
            similar targets; this selector itself if the options allow no tries, or output errors
            were not measured.
        """
        if self.sensitivity is None or not (self.options.tries or self.options.should_compare):
            return self
        best = refine_allocation(
            self.sensitivity,
            lambda scaled: select_by_output_error(
                self.coupling, self.options, scaled, target, custom_cost
            ),
            self.evaluator,
            self.options.tries,
            self.context.seed,
            on_progress,
        )
        notes = (best.summarize(),) if best.tried_count else ()
        selector = replace(self, sensitivity=best.sensitivity, notes=notes)
        error = best.output_error
        if self.options.should_compare:
            selector, error = selector._compare_methods(
                best, target, custom_cost, on_progress or ignore_progress
            )
        selector = selector._compare_rounding(error, target, custom_cost)
        self.evaluator.release_outputs()
        return selector

    def _compare_methods(
        self,
        best: Refinement,
        target: float,
        custom_cost: CostFunction | None,
        on_progress: OnProgress,
    ) -> tuple[ChannelSelector, float]:
        """Return a selector with the method whose configuration has the least output error.

        Args:
            best: Best configuration selected by output error.
            target, custom_cost, on_progress: See `refine`.

        Returns:
            The selector, and the output error of its configuration after a quick reconstruction.
        """
        selections, unmet = self._select_by_all(best.selection, target, custom_cost)

        def measure_errors(
            text: str, methods: Sequence[str], *, thorough: bool
        ) -> dict[str, float]:
            errors = {
                method: best.output_error
                for method in methods
                if selections[method] is best.selection and not thorough
            }
            missing = [method for method in methods if method not in errors]
            for index, method in enumerate(missing):
                on_progress(text, index / len(missing))
                item = selections[method]
                errors[method] = self.evaluator.measure_error(
                    item.mask, item.removed_blocks, thorough=thorough
                )
            return errors

        errors = measure_errors("comparing selection methods", list(selections), thorough=False)
        quick_errors = errors
        count = len(self.evaluator.evaluation_inputs[0])
        note = f"divergence from the original on {count} held-back examples: "
        note += _format_errors(errors)
        most = CLOSE * max(EQUAL, min(errors.values()))
        close = [method for method, error in errors.items() if error <= most]
        # quick reconstructions do not tell close ones apart
        if len(close) > 1 and self.is_thorough:
            errors = measure_errors("comparing close selection methods", close, thorough=True)
            note += f"; reconstructed more thoroughly: {_format_errors(errors)}"
        chosen = min(errors, key=lambda method: errors[method])
        if unmet:
            note += f"; not compared, because they miss the target: {', '.join(unmet)}"
        earlier = self.notes if chosen == OUTPUT_ERROR else ()
        return replace(self, method=chosen, notes=(*earlier, note)), quick_errors[chosen]

    def _compare_rounding(
        self, error: float, target: float, custom_cost: CostFunction | None
    ) -> ChannelSelector:
        """Return a selector with finer rounding if the default's steps cost much output error.

        Small layers of deeply pruned models have few multiples of 8 and 16 to choose from.

        Args:
            error: Output error of this selector's configuration after a quick reconstruction.
            target, custom_cost: See `refine`.
        """
        steps = list_rounding_steps(self.options)
        if len(steps) == 1:
            return self
        finer = replace(self, options=replace(self.options, round_to=steps[-1]))
        try:
            coarse, fine = (item.select(target, custom_cost) for item in (self, finer))
        except FeasibleError:
            return self
        is_nearer = abs(fine.allocation.error) <= max(TOLERANCE, abs(coarse.allocation.error))
        if coarse.key == fine.key or not is_nearer:
            return self
        fine_error = self.evaluator.measure_error(fine.mask, fine.removed_blocks)
        if not fine_error < FINER_GAIN * error:
            return self
        note = (
            f"kept numbers are multiples of {steps[-1]}: divergence {fine_error:.3g}, against "
            f"{error:.3g} with multiples of {coarse.round_to}, which may be faster at the "
            "same MACs (--round-to)"
        )
        return replace(finer, notes=(*self.notes, note))

    def _select_by_all(
        self, by_output_error: Selection, target: float, custom_cost: CostFunction | None
    ) -> tuple[dict[str, Selection], list[str]]:
        """Return the selections of all methods near the target, and the methods that miss it."""
        selections, unmet = {OUTPUT_ERROR: by_output_error}, []
        for method in RANKING_METHODS:
            try:
                selections[method] = self._select_ranked(method, target, custom_cost)
            except FeasibleError:
                unmet.append(method)
        # configurations above the target have an advantage; those far below waste the budget
        misses = {method: item.allocation.error for method, item in selections.items()}
        nearest = min(abs(miss) for miss in misses.values())
        low, high = -max(MAX_UNDERSHOOT, nearest), max(TOLERANCE, nearest)
        unmet += [method for method, miss in misses.items() if not low <= miss <= high]
        return {key: item for key, item in selections.items() if key not in unmet}, unmet

    def select(self, target: float, custom_cost: CostFunction | None = None) -> Selection:
        """Select channel counts and blocks for a target.

        Args:
            target: Cost to reach.
            custom_cost: Cost of kept units and present blocks; default: MACs.

        Raises:
            FeasibleError: The target is below the feasible minimum.
        """
        if self.method != OUTPUT_ERROR:
            selection = self._select_ranked(self.method, target, custom_cost)
            return replace(selection, notes=(*self.notes, *selection.notes), method=self.method)
        assert self.sensitivity is not None, "without a method, output errors were measured"
        chosen = select_by_output_error(
            self.coupling, self.options, self.sensitivity, target, custom_cost
        )
        removed = (f"block '{block.name}' was removed" for block in chosen.removed_blocks)
        missed = list_notes(self.coupling, self.options, chosen, target, custom_cost)
        return replace(chosen, notes=(*removed, *self.notes, *missed))

    def apply_power(self, power: float) -> ChannelSelector:
        """Return a selector by output errors raised to a power, if they were measured."""
        if self.sensitivity is None:
            return self
        return replace(
            self, sensitivity=self.sensitivity.apply_power(power), method=OUTPUT_ERROR, notes=()
        )

    def _select_ranked(
        self, method: str, target: float, custom_cost: CostFunction | None
    ) -> Selection:
        options = replace(self.options, blocks=False, **RANKING_METHODS[method])
        criterion = CRITERIA[options.criterion]
        return select_by_rank(self.coupling, options, criterion, self.context, target, custom_cost)


def _format_errors(errors: Mapping[str, float]) -> str:
    """Return "output error 0.0268, l2 over all layers 0.0788"."""
    return ", ".join(f"{method} {error:.3g}" for method, error in errors.items())


@dataclass(frozen=True)
class EffortEstimate:
    """Estimated time and memory of a comparison of methods.

    Attributes:
        seconds: Time without thorough reconstructions and neighbouring configurations.
        thorough_seconds: Time to reconstruct close methods thoroughly.
        trial_seconds: Time to reconstruct and evaluate one configuration.
        bytes: Memory of second moments and of reconstructed kernels.
    """

    seconds: float
    thorough_seconds: float
    trial_seconds: float
    bytes: int

    @property
    def allows_thorough(self) -> bool:
        """Whether there is time to reconstruct close methods thoroughly."""
        return self.seconds + self.thorough_seconds <= LONGEST_WITH_TRIES

    def limit_tries(self, tries: int) -> int:
        """Return the number of neighbouring configurations that time allows, at most `tries`."""
        left = LONGEST_WITH_TRIES - self.seconds - self.thorough_seconds
        return max(0, min(tries, int(left / max(self.trial_seconds, 1e-9))))

    @property
    def refusal(self) -> str:
        """The reason why methods are not compared; empty if they are."""
        if not get_current_budget().can_hold(self.bytes, MEMORY_SHARE):
            return (
                "output errors were not measured, because that takes "
                f"{format_gigabytes(self.bytes)} of "
                "memory (estimated), more than half of what is free: channels are ranked by l2 "
                "over all layers"
            )
        if self.seconds > LONGEST:
            return (
                f"output errors were not measured, because that takes about "
                f"{self.seconds / 60:.0f} minutes (estimated), more than {LONGEST / 60:.0f}: "
                "channels are ranked by l2 over all layers; --channel-scope output_error measures "
                "them"
            )
        return ""


def estimate_effort(
    coupling: Coupling, options: ChannelOptions, evaluator: ErrorEvaluator
) -> EffortEstimate:
    """Estimate the effort of measuring output errors, from a forward pass and the layer sizes.

    Args:
        coupling: Coupling of the model.
        options: Whether blocks are tried.
        evaluator: Evaluator of the same model and data.
    """
    forward = evaluator.time_passes()
    kernels = _list_kernel_shapes(evaluator.program)
    count, evaluation_count = evaluator.example_count, len(evaluator.evaluation_inputs[0])
    trials = evaluator.count_trials()
    squares = sum(systems * columns**2 for systems, columns, _ in kernels)
    cubes = sum(systems * columns**3 for systems, columns, _ in kernels)
    solving = (2 * QUICK_SAMPLES * squares + 2 * cubes) / SOLVER_FLOPS
    configuration_seconds = solving + forward.predict(
        FORWARD_PASSES * min(QUICK_EXAMPLES, count) + evaluation_count, BUILDING_PASSES
    )
    observed = sum(systems * count_samples(systems, c) * c**2 for systems, c, _ in kernels)
    observing = forward.predict(count) + (2 * observed + 4 * cubes) / SOLVER_FLOPS
    trying = forward.predict(trials * evaluator.count_sensitivity_examples() / 2, trials / 2)
    blocks = len(list_blocks(coupling)) if options.blocks else 0
    # a covariance and its inverse are stored with the second moments
    moment_bytes = sum(24 * columns**2 for systems, columns, _ in kernels if systems == 1)
    kernel_bytes = 12 * len(SHARES) * sum(columns * outputs for _, columns, outputs in kernels)
    # one configuration of each method, one of finer steps, and one without each block
    quick = (METHODS + (options.round_to == 0) + blocks) * configuration_seconds
    thorough = (
        CLOSE_METHODS
        * THOROUGH_FACTOR
        * configuration_seconds
        * max(1.0, (count - evaluation_count) / QUICK_EXAMPLES)
    )
    return EffortEstimate(
        observing + trying + quick,
        thorough,
        configuration_seconds,
        int(moment_bytes + kernel_bytes),
    )


def _list_kernel_shapes(program: Program) -> list[tuple[int, int, int]]:
    """Return (systems, columns, outputs) of each kernel that can be reconstructed."""
    shapes = {}
    for node in program.nodes:
        if not has_parts(node.operation):
            continue
        parts, _ = build_parts(node.operation, len(node.inputs[0].shape))
        for part in parts:
            shape = part.to_matrix(np.empty(tuple(part.kernel.shape), np.int8)).shape
            shapes[id(part.kernel)] = (int(shape[0]), int(shape[1]), int(shape[2]))
    return list(shapes.values())
