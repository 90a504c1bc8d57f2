"""Reconstruction criterion: units that other units can replace are removed first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from compress.core.device import limit_blas_threads
from compress.core.errors import InputError
from compress.data import sample_inputs
from compress.model.ports import flatten_inputs
from compress.model.program import flatten_program
from compress.model.recording import record_program
from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.criteria._base import Context, Scores
from compress.prune.channels.criteria.magnitude import score_l2
from compress.reconstruction.input_moments import KernelInputs, collect_input_moments
from compress.reconstruction.matching import should_open

ROUNDS = 64
"""Maximum number of elimination rounds; in larger groups a round removes several units."""
RIDGE = 1e-3  # relative to the second moment of each kernel input


def score_reconstruction(group: Group, context: Context) -> Scores:
    """Score units by the error that their removal adds after least squares, (units,).

    Units are eliminated greedily, considering all layers that read the group. Each step removes the
    unit that adds least to the sum of the layers' relative errors (in groups of more than 64 units
    several at once), with all remaining weights reconstructed. Its score is the added error, or
    that of the unit before if it is larger. A group that no kernel reads (key dimensions of
    attention, states of recurrent layers) is scored by l2, which is noted in the report.

    Raises:
        InputError: There is no data.

    Reference:
        Hassibi & Stork 1993, "Optimal Brain Surgeon", eq. 5, for blocks of weights as in Frantar &
        Alistarh 2022, "Optimal Brain Compression", section 4. Here a block is all weights of a unit
        in the kernels that read it, each relative to the spread of its layer's outputs.
    """
    readers = context.compute_once(collect_readers)[group.index]
    if not readers:
        context.notes.append(f"group '{group.name}' is read by no kernel alone: scored by l2")
        return score_l2(group, context)
    kept = context.compute_once(KeptEliminations)
    counts = () if kept.list_counts is None else kept.list_counts(len(group.units))
    elimination = eliminate_units(readers, len(group.units), counts)
    if counts:
        kept.by_group[group.index] = elimination
    return elimination.scores


@dataclass(eq=False)
class Reader:
    """A kernel that reads the units of a group.

    Attributes:
        observed: The kernel and the second moments of its inputs.
        inverse: Inverse of the regularized covariance of its inputs, (columns, columns).
        kernel: Weights divided by `scale`, (columns, outputs), with one column for each input of a
            product.
        scale: Square root of the summed second moments of the outputs (variances if they can be
            shifted).
        columns: Columns of each unit, (units, columns per unit).
    """

    observed: KernelInputs
    inverse: Numbers
    kernel: Numbers
    scale: float
    columns: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Elimination:
    """The order in which units were removed, and the errors.

    Attributes:
        scores: Error that the removal of each unit adds, (units,); made nondecreasing in `order`.
        order: Units in the order of removal.
        kernels: For each requested number of removed units, the kernels of all readers, (columns,
            outputs), reconstructed without these units.
    """

    scores: Scores
    order: npt.NDArray[np.int64]
    kernels: dict[int, list[Numbers]]


class KeptEliminations:
    """Eliminations that scored a context's groups, kept if their kernels are wanted.

    Attributes:
        list_counts: Function from a number of units to the numbers of removed units at which
            kernels are wanted; None: at none, and eliminations are not kept.
        by_group: Eliminations by index of the group.
    """

    def __init__(self, _: Context) -> None:
        self.list_counts: Callable[[int], Sequence[int]] | None = None
        self.by_group: dict[int, Elimination] = {}


@limit_blas_threads(1)
def eliminate_units(
    readers: list[Reader],
    unit_count: int,
    kernel_counts: Sequence[int] = (),
    fixed_order: npt.NDArray[np.int64] | None = None,
) -> Elimination:
    """Remove units one after another, the least costly first.

    Args:
        readers: Kernels that read the units.
        unit_count: Number of units.
        kernel_counts: Numbers of removed units at which kernels are returned.
        fixed_order: Order of removal; default: by the added error.

    Returns:
        Scores, order and kernels.
    """
    readers = [
        replace(reader, inverse=reader.inverse.copy(), kernel=reader.kernel.copy())
        for reader in readers
    ]
    remaining = np.arange(unit_count)
    scores = np.zeros(unit_count)
    order: list[int] = []
    kernels: dict[int, list[Numbers]] = {}
    total = 0.0
    while len(remaining):
        losses = sum(
            (_compute_losses(reader, remaining) for reader in readers), np.zeros(len(remaining))
        )
        round_size = -(-unit_count // ROUNDS)
        count = min(
            [round_size, *[stop - len(order) for stop in kernel_counts if stop > len(order)]]
        )
        if fixed_order is None:
            removed = np.argsort(losses, kind="stable")[:count]
        else:
            removed = np.searchsorted(remaining, fixed_order[len(order) : len(order) + count])
        for index in removed:
            # scores never decrease in the order of removal
            total = max(total, float(losses[index]))
            scores[remaining[index]] = total
            order.append(int(remaining[index]))
        for reader in readers:
            _remove_columns(reader, np.concatenate(reader.columns[remaining[removed]]))
        remaining = np.delete(remaining, removed)
        if len(order) in kernel_counts:
            kernels[len(order)] = [reader.kernel * reader.scale for reader in readers]
    # the order breaks ties
    scores[order] += 1e-12 * np.arange(unit_count)
    return Elimination(scores, np.array(order), kernels)


def _compute_losses(reader: Reader, units: npt.NDArray[np.int64]) -> Numbers:
    columns = reader.columns[units]
    blocks = reader.inverse[columns[:, :, None], columns[:, None]]
    kernel = reader.kernel[columns]
    return np.asarray((kernel * np.linalg.solve(blocks, kernel)).sum((1, 2)))


def _remove_columns(reader: Reader, columns: npt.NDArray[np.int64]) -> None:
    """Remove columns and reconstruct the remaining weights."""
    block = reader.inverse[np.ix_(columns, columns)]
    across = reader.inverse[:, columns]
    reader.kernel -= across @ np.linalg.solve(block, reader.kernel[columns])
    reader.inverse -= across @ np.linalg.solve(block, across.T)
    # decouple removed columns exactly, regardless of rounding errors
    reader.kernel[columns] = 0.0
    reader.inverse[columns] = 0.0
    reader.inverse[:, columns] = 0.0
    reader.inverse[columns, columns] = 1.0


def collect_readers(context: Context) -> list[list[Reader]]:
    """Return the readers of every group, from one pass over the examples.

    Raises:
        InputError: There is no data.
    """
    data = context.data
    if data is None:
        raise InputError("Criterion 'reconstruction' must have data to look at. Give data=.")
    model = context.coupling.program.model
    x = flatten_inputs(model, sample_inputs(data, context.examples, context.seed))
    return build_readers(
        context,
        collect_input_moments(
            flatten_program(record_program(model, should_open)), x, seed=context.seed
        ),
    )


@limit_blas_threads(1)
def build_readers(
    context: Context, observed_kernels: dict[int, KernelInputs]
) -> list[list[Reader]]:
    """Return the readers of every group.

    Args:
        context: Weights by unit.
        observed_kernels: Second moments of kernel inputs, by id of the kernel.

    Returns:
        For each group, the kernels that read it.
    """
    prepared: dict[int, Reader] = {}
    readers_by_group: list[list[Reader]] = []
    for group in context.coupling.groups:
        readers = []
        for part in context.kernels(group):
            observed = observed_kernels.get(id(part.variable))
            if observed is None or part.axis in observed.part.features:
                continue
            if id(part.variable) not in prepared:
                prepared[id(part.variable)] = _prepare_reader(observed)
            by_entry = observed.find_columns(part.axis)
            order = np.argsort(part.local, kind="stable")
            columns = by_entry[part.entries[order]].reshape(len(group.units), -1)
            readers.append(replace(prepared[id(part.variable)], columns=columns))
        readers_by_group.append(readers)
    return readers_by_group


def _prepare_reader(observed: KernelInputs) -> Reader:
    covariance, kernel = observed.compute_covariance(), observed.read_kernel()
    spread = float(np.einsum("dm,de,em->", kernel, covariance, kernel, optimize=True))
    scale = max(spread, 1e-30) ** 0.5
    diagonal = np.diag(covariance)
    ridge_floor = 1e-9 * max(float(diagonal.max()), 1e-30)
    inverse = np.asarray(np.linalg.inv(covariance + np.diag(RIDGE * diagonal + ridge_floor)))
    return Reader(observed, inverse, kernel / scale, scale, np.empty((0, 0), np.int64))
