"""Criterion by reconstruction: units that the others can replace are removed first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from compress.core.device import one_blas_thread
from compress.core.errors import InputError
from compress.data import drawn_inputs
from compress.model.ports import listed
from compress.model.program import flat
from compress.model.recording import record
from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores
from compress.prune.channels.criteria.magnitude import l2
from compress.reconstruction.matching import opens
from compress.reconstruction.observing import Observed, observe

STEPS = 64
"""Rounds in which the units of a group leave; of more units several leave in a round."""
RIDGE = 1e-3
Numbers = npt.NDArray[np.float64]


def reconstruction(group: Group, context: Context) -> Scores:
    """Score units by the error that remains after least squares without them, (units,).

    All layers that read the group are looked at together. Of what is left, the unit leaves next
    whose removal adds least to the sum of their relative errors, all remaining weights being
    solved for; its score is that error. A group that no kernel reads (attention widths, states
    of recurrent layers) is scored by l2, and the report says so.

    Reference:
        Hassibi & Stork 1993, "Optimal Brain Surgeon", eq. 5, for blocks of weights as in Frantar
        & Alistarh 2022, "Optimal Brain Compression", section 4; here a block is all that a unit
        owns in the kernels that read it, each relative to the spread of its layer's outputs.
    """
    readers = context.of_all(all_readers)[group.index]
    if not readers:
        context.notes.append(f"group '{group.name}' is read by no kernel alone: scored by l2")
        return l2(group, context)
    return eliminated(readers, len(group.units)).scores


@dataclass(eq=False)
class Reader:
    """A kernel that reads the units of a group.

    Attributes:
        observed: The kernel and what it reads.
        inverse: Of the regularised covariance of its rows, (columns, columns).
        kernel: Weights over `scale`, (columns, outputs).
        scale: Root of the spread of all outputs.
        columns: Of each unit, (units, columns each).
    """

    observed: Observed
    inverse: Numbers
    kernel: Numbers
    scale: float
    columns: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Elimination:
    """The order in which units were removed, and the errors.

    Attributes:
        scores: Error that each added when it left, (units,); it never falls.
        order: Units as they left.
        kernels: For each number of removed units that was asked for, the kernels of all readers,
            (columns, outputs), solved for without these units.
    """

    scores: Scores
    order: npt.NDArray[np.int64]
    kernels: dict[int, list[Numbers]]


@one_blas_thread()
def eliminated(
    readers: list[Reader],
    units: int,
    asked: Sequence[int] = (),
    given: npt.NDArray[np.int64] | None = None,
) -> Elimination:
    """Remove units one after the other, those first that cost least.

    Args:
        readers: What reads them.
        units: Their number.
        asked: Numbers of removed units at which kernels are wanted.
        given: The order in which they leave; default: it is found.
    """
    readers = [
        replace(reader, inverse=reader.inverse.copy(), kernel=reader.kernel.copy())
        for reader in readers
    ]
    left = np.arange(units)
    scores = np.zeros(units)
    order: list[int] = []
    kernels: dict[int, list[Numbers]] = {}
    total = 0.0
    while len(left):
        losses = sum((_losses(reader, left) for reader in readers), np.zeros(len(left)))
        each = -(-units // STEPS)
        many = min([each, *[stop - len(order) for stop in asked if stop > len(order)]])
        if given is None:
            gone = np.argsort(losses, kind="stable")[:many]
        else:
            gone = np.searchsorted(left, given[len(order) : len(order) + many])
        for place in gone:
            # what a later unit costs is never less than what an earlier one did
            total = max(total, float(losses[place]))
            scores[left[place]] = total
            order.append(int(left[place]))
        for reader in readers:
            _remove(reader, np.concatenate(reader.columns[left[gone]]))
        left = np.delete(left, gone)
        if len(order) in asked:
            kernels[len(order)] = [reader.kernel * reader.scale for reader in readers]
    # equal scores are told apart by the order
    scores[order] += 1e-12 * np.arange(units)
    return Elimination(scores, np.array(order), kernels)


def _losses(reader: Reader, units: npt.NDArray[np.int64]) -> Numbers:
    columns = reader.columns[units]
    blocks = reader.inverse[columns[:, :, None], columns[:, None]]
    kernel = reader.kernel[columns]
    return np.asarray((kernel * np.linalg.solve(blocks, kernel)).sum((1, 2)))


def _remove(reader: Reader, columns: npt.NDArray[np.int64]) -> None:
    """Remove columns; the other weights are solved for anew."""
    block = reader.inverse[np.ix_(columns, columns)]
    across = reader.inverse[:, columns]
    reader.kernel -= across @ np.linalg.solve(block, reader.kernel[columns])
    reader.inverse -= across @ np.linalg.solve(block, across.T)
    # what left is decoupled exactly, whatever rounding made of it
    reader.kernel[columns] = 0.0
    reader.inverse[columns] = 0.0
    reader.inverse[:, columns] = 0.0
    reader.inverse[columns, columns] = 1.0


def all_readers(context: Context) -> list[list[Reader]]:
    """Return the readers of every group, from one pass over the examples."""
    data = context.data
    if data is None:
        raise InputError("Criterion 'reconstruction' must have data to look at. Give data=.")
    model = context.coupling.program.model
    x = listed(model, drawn_inputs(data, context.examples, context.seed))
    return readers_of(context, observe(flat(record(model, opens)), x, seed=context.seed))


@one_blas_thread()
def readers_of(context: Context, seen: dict[int, Observed]) -> list[list[Reader]]:
    """Return the readers of every group.

    Args:
        context: Weights by unit.
        seen: What kernels read, by id of the kernel.
    """
    prepared: dict[int, Reader] = {}
    found: list[list[Reader]] = []
    for group in context.coupling.groups:
        readers = []
        for part in context.kernels(group):
            observed = seen.get(id(part.variable))
            if observed is None or part.axis in observed.part.features:
                continue
            if id(part.variable) not in prepared:
                prepared[id(part.variable)] = _prepared(observed)
            by_entry = observed.columns_of(part.axis)
            order = np.argsort(part.local, kind="stable")
            columns = by_entry[part.entries[order]].reshape(len(group.units), -1)
            readers.append(replace(prepared[id(part.variable)], columns=columns))
        found.append(readers)
    return found


def _prepared(observed: Observed) -> Reader:
    covariance, kernel = observed.covariance(), observed.kernel()
    spread = float(np.einsum("dm,de,em->", kernel, covariance, kernel, optimize=True))
    scale = max(spread, 1e-30) ** 0.5
    diagonal = np.diag(covariance)
    least = 1e-9 * max(float(diagonal.max()), 1e-30)
    inverse = np.asarray(np.linalg.inv(covariance + np.diag(RIDGE * diagonal + least)))
    return Reader(observed, inverse, kernel / scale, scale, np.empty((0, 0), np.int64))
