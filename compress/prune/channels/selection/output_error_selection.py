"""Channel counts and blocks by output error: the least sum, then neighbouring configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from compress.core.summary import OnProgress
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import list_blocks
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.selection.allowed_counts import (
    TARGET_PRECISION,
    TOLERANCE,
    Allocation,
    AllowedCounts,
    Counts,
    Selection,
    choose_nearest,
    compute_allowed_counts,
    format_rounding_step,
)
from compress.prune.channels.selection.output_error import ErrorEvaluator
from compress.prune.channels.selection.rank_selection import keep_best
from compress.prune.channels.selection.sensitivity import OutputErrors, SensitivityMap
from compress.prune.channels.selection.target import CostFunction, resolve_cost

OUTPUT_ERROR = "output error"
"""Name of this method in reports."""
MAX_EXCHANGES = 300
"""Maximum number of exchanges of steps between two groups or blocks."""
FACTOR_STD = 0.3
"""Standard deviation of the logarithm of the drawn factors."""
BLOCK_FACTORS = (1.5, 2.0, 3.0, 5.0)
"""Factors of all blocks, tried first: two removed blocks cause more error than their sum."""
WIDENING = 1.03
"""Factor of that deviation after a draw that leads to no new configuration."""
DRAWS_PER_TRY = 10
"""Maximum draws per try: several draws may give the same configuration, evaluated once."""


def select_by_output_error(
    coupling: Coupling,
    options: ChannelOptions,
    sensitivity: SensitivityMap,
    target: float,
    cost: CostFunction | None = None,
) -> Selection:
    """Select the channel counts and blocks of least total output error for a target.

    Args:
        coupling: Coupling of the model.
        options: Rounding, floors and excluded layers.
        sensitivity: Sensitivity map of this model.
        target: Cost to reach.
        cost: Cost of kept units and present blocks; default: MACs.

    Raises:
        InputError: A pattern matches no layer with removable channels.
    """
    cost_function = resolve_cost(coupling, cost)
    output_errors = sensitivity.build_output_errors(coupling)

    def compute_cost(kept: Any, present: Any) -> Numbers:
        # without measured blocks, all of them are kept
        return np.asarray(cost_function(kept, present if sensitivity.blocks else None), np.float64)

    def allocate(round_to: int) -> Allocation:
        allowed = compute_allowed_counts(coupling, options, round_to)
        allocation = allocate_by_error(output_errors, allowed, compute_cost, target)
        if allocation.is_on_target:
            return allocation
        # a coarse step often lands just above the target; finer steps are slower at the same MACs
        highest = target * (1 + TOLERANCE) / (1 + TARGET_PRECISION)
        above = allocate_by_error(output_errors, allowed, compute_cost, highest)
        above = replace(above, error=(above.cost - target) / target)
        return min(allocation, above, key=lambda item: abs(item.error))

    allocation, round_to = choose_nearest(options, allocate)
    fixed = compute_allowed_counts(coupling, options, round_to).fixed
    removed_indices = np.flatnonzero(allocation.present == 0)
    blocks = list_blocks(coupling) if len(removed_indices) else ()
    outer = {inner for index in removed_indices for inner in blocks[index].inner}
    return Selection(
        keep_best(
            coupling,
            [np.array(group.scores) for group in sensitivity.groups],
            allocation.totals - fixed,
        ),
        allocation,
        format_rounding_step(round_to),
        removed_blocks=tuple(blocks[index] for index in removed_indices if index not in outer),
        method=OUTPUT_ERROR,
    )


def allocate_by_error(
    output_errors: OutputErrors, allowed: AllowedCounts, cost: CostFunction, target: float
) -> Allocation:
    """Return the channel counts and blocks of least total output error for a target.

    From the original model on, each step (of one group, or of a block) is the one that adds least
    output error relative to the logarithm of the cost that it saves. Then pairs of groups or blocks
    exchange steps as long as this lowers the total output error within the target.

    Args:
        output_errors: Output errors of groups and blocks.
        allowed: Rounding steps and floors.
        cost: Cost of kept units and present blocks.
        target: Cost to reach.
    """
    state = _AllocationState(output_errors, allowed, cost)
    current = np.concatenate([allowed.total, np.ones(len(output_errors.blocks), np.int64)])
    while float(state.compute_cost(current)) > target * (1 + TARGET_PRECISION):
        moves = state.list_next_states(current, up=False)
        saved = np.log(float(state.compute_cost(current))) - np.log(
            np.maximum(state.compute_cost(moves), 1e-9)
        )
        added = state.compute_error(moves) - state.compute_error(current)
        possible = (moves != current).any(1) & (saved > 1e-12)
        if not possible.any():
            break
        rate = np.where(possible, added / np.where(possible, saved, 1.0), np.inf)
        # steps that add no error come first, the largest saving first
        rate = np.where(possible & (added <= 0), -saved, rate)
        current = moves[int(np.argmin(rate))]
    current = _exchange_steps(state, current, target)
    total = float(state.compute_cost(current))
    groups = len(allowed.total)
    return Allocation(current[:groups], total, (total - target) / target, current[groups:])


@dataclass(frozen=True, eq=False)
class _AllocationState:
    """Costs and output errors of rows of totals and presence, (..., groups + blocks)."""

    output_errors: OutputErrors
    allowed: AllowedCounts
    cost_function: CostFunction

    def compute_cost(self, state: Counts) -> Numbers:
        """Return the cost of states, (..., groups + blocks) -> (...,)."""
        groups = len(self.allowed.total)
        return self.cost_function(state[..., :groups] - self.allowed.fixed, state[..., groups:])

    def compute_error(self, state: Counts) -> Numbers:
        """Return the output error of states, (..., groups + blocks) -> (...,)."""
        groups = len(self.allowed.total)
        return self.output_errors(self.allowed.total - state[..., :groups], state[..., groups:])

    def list_next_states(self, state: Counts, *, up: bool) -> Counts:
        """Return the states after one step down, or up, a row for each group and block.

        A row equals the given state if no step is possible. Shape: (groups + blocks,) twice.
        """
        groups = len(self.allowed.total)
        totals = (self.allowed.step_up if up else self.allowed.step_down)(state[:groups])
        rows = np.repeat(state[None], len(state), axis=0)
        np.fill_diagonal(rows, [*totals, *[int(up)] * (len(state) - groups)])
        return rows


def _exchange_steps(state: _AllocationState, row: Counts, target: float) -> Counts:
    """Undo steps if the cost allows it, and exchange steps between two groups or blocks."""
    for _ in range(MAX_EXCHANGES):
        up = state.list_next_states(row, up=True) - row
        down = state.list_next_states(row, up=False) - row
        combined = up[:, None] + down[None]
        index = np.arange(len(row))
        combined[index, index] = up
        moves = row + combined.reshape(-1, len(row))
        fits = state.compute_cost(moves) <= target * (1 + TARGET_PRECISION)
        after = np.where(fits, state.compute_error(moves), np.inf)
        best = int(np.argmin(after))
        if not after[best] < float(state.compute_error(row)) - 1e-12:
            return row
        row = moves[best]
    return row


class Refinement(NamedTuple):
    """The best of several allocations.

    Attributes:
        selection: Units and blocks of the best allocation.
        sensitivity: Scaled output errors that led to it.
        output_error: Its measured output error.
        first_error: Measured output error of the first allocation.
        tried_count: Number of other allocations that were evaluated.
    """

    selection: Selection
    sensitivity: SensitivityMap
    output_error: float
    first_error: float
    tried_count: int

    def summarize(self) -> str:
        """Return the result of the search in one line."""
        return (
            f"output error of the first choice, all layers repaired: {self.first_error:.3g}; of "
            f"the best of {self.tried_count} near it: {self.output_error:.3g}"
        )


def refine_allocation(
    sensitivity: SensitivityMap,
    select: Callable[[SensitivityMap], Selection],
    evaluator: ErrorEvaluator,
    tries: int,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Refinement:
    """Search around an allocation for one with less output error, all layers reconstructed.

    Factors of the output errors of groups and blocks are drawn around the best ones so far. Each
    set of factors leads to an allocation of least total output error for the same target. An
    allocation is not evaluated if it misses the target by more than the first one and by more than
    the tolerance.

    Args:
        sensitivity: Output errors as measured, one group or block at a time.
        select: Function of a sensitivity map that returns the selection for the target.
        evaluator: Evaluator that measures the output error of a selection.
        tries: Maximum number of allocations evaluated besides the first.
        seed: Seed of the drawn factors.
        on_progress: Called with (text, completed share).

    Returns:
        The best allocation; the first one if no other is better.
    """
    rng = np.random.default_rng(seed)
    # factors of the groups, and of the blocks
    best_factors = [np.ones(len(sensitivity.groups)), np.ones(len(sensitivity.blocks))]
    pending_factors = [
        [best_factors[0], factor * best_factors[1]]
        for factor in BLOCK_FACTORS
        if sensitivity.blocks
    ]
    best_sensitivity, best_selection = sensitivity, select(sensitivity)
    first_error = least_error = evaluator.measure_error(
        best_selection.mask, best_selection.removed_blocks
    )
    deviation = FACTOR_STD
    seen, max_error = {best_selection.key}, max(TOLERANCE, abs(best_selection.allocation.error))
    for _ in range(len(pending_factors) + DRAWS_PER_TRY * tries):
        if len(seen) > tries:
            break
        factors = (
            pending_factors.pop(0)
            if pending_factors
            else [
                part * np.exp(deviation * rng.standard_normal(len(part))) for part in best_factors
            ]
        )
        scaled = sensitivity.scale(*factors)
        candidate = select(scaled)
        if candidate.key in seen or abs(candidate.allocation.error) > max_error:
            deviation = min(2 * FACTOR_STD, deviation * WIDENING)
            continue
        deviation = FACTOR_STD
        if on_progress is not None:
            on_progress("choices near the first one", (len(seen) - 1) / tries)
        seen.add(candidate.key)
        error = evaluator.measure_error(candidate.mask, candidate.removed_blocks)
        if error < least_error:
            least_error, best_selection, best_sensitivity, best_factors = (
                error,
                candidate,
                scaled,
                factors,
            )
    return Refinement(best_selection, best_sensitivity, least_error, first_error, len(seen) - 1)
