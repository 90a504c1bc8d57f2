"""Sensitivity map: the output error of thinner groups and of missing blocks, for any target."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.arrays import named
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.core.summary import Readable, Summary
from compress.model.internals import weights_hash
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.criteria import Context
from compress.prune.channels.selection.allowed import Counts

SHARES = (0.25, 0.5, 0.625, 0.75, 0.875)
"""Of a group's channels that are removed, where the output error is measured."""


def removed_counts(units: int) -> list[int]:
    """Return the numbers of removed channels at which a group's output error is measured."""
    return [min(units - 1, max(1, round(share * units))) for share in SHARES]


class Losses:
    """Output errors of all channel counts of each group, and without each block.

    Args:
        by_count: Of each group, by removed units, (units + 1,).
        blocks: (blocks,).
        inside: (blocks, groups): a group that lies in a block alone.
        nested: (blocks, blocks): the second lies in the first.
    """

    def __init__(
        self,
        by_count: Sequence[Numbers],
        blocks: Sequence[float],
        inside: npt.NDArray[np.bool_],
        nested: npt.NDArray[np.bool_],
    ) -> None:
        # behind a group's own units, infinity
        self.table = np.full((len(by_count), max(map(len, by_count))), np.inf)
        for row, part in zip(self.table, by_count, strict=True):
            row[: len(part)] = part
        self.blocks = np.asarray(blocks, float)
        self.inside, self.nested = inside, nested

    def __call__(self, removed: Counts, present: Counts) -> Numbers:
        """Return the sum of damages, (...); what lies in a block that left does none."""
        gone = present == 0
        hidden = (gone[..., :, None] & self.inside).any(-2)
        widths = np.where(hidden, 0.0, self.table[np.arange(len(self.table)), removed])
        covered = (gone[..., :, None] & self.nested).any(-2)
        return np.asarray(widths.sum(-1) + (self.blocks * (gone & ~covered)).sum(-1))


class BlockSensitivity(NamedTuple):
    """The output error without one block, all layers reconstructed."""

    name: str
    output_error: float


@dataclass(frozen=True)
class GroupSensitivity:
    """The output error where some of one group's channels are removed.

    Attributes:
        name: Of the group.
        removed: Numbers of removed channels (or heads), rising.
        output_error: At each, the layers that read the group reconstructed; see
            `compress.measure.quality`.
        scores: One a channel; those of the lowest scores are removed first.
    """

    name: str
    removed: tuple[int, ...]
    output_error: tuple[float, ...]
    scores: tuple[float, ...]

    def interpolate(self) -> Numbers:
        """Return the output error with 0 to all channels removed, (channels + 1,); it never falls.

        Between measured numbers it is interpolated; with all channels removed it is twice that of
        the last one.
        """
        units = len(self.scores)
        known = np.maximum.accumulate(np.maximum([0.0, *self.output_error], 0.0))
        values = [*known, 2.0 * known[-1] + 1e-12]
        counts = np.arange(units + 1)
        return np.asarray(np.interp(counts, [0, *self.removed, units], values) + 1e-9 * counts)


@dataclass(frozen=True, repr=False)
class SensitivityMap(Readable):
    """The output errors of all thinner groups of a model, measured once and used for any target.

    Attributes:
        groups: In the order of the model.
        blocks: Likewise; (): blocks were not measured, and stay.
        notes: What the user should know of the channels' scores.
        origin: All that the numbers depend on; see `describe_origin`.
    """

    groups: tuple[GroupSensitivity, ...]
    blocks: tuple[BlockSensitivity, ...] = ()
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    def check(self, context: Context, criterion: str, blocks: bool) -> None:
        """Check that the map was measured on the same model, examples and options.

        Args:
            context: Model, examples, aggregation and seed.
            criterion: Name of what orders the channels of a group.
            blocks: Whether blocks may be removed.

        Raises:
            InputError: It was measured on something else.
        """
        blocks = blocks or bool(self.origin.get("blocks"))
        differences = [
            f"{name} {self.origin.get(name)} instead of {value}"
            for name, value in describe_origin(context, criterion, blocks).items()
            if self.origin.get(name) != value
        ]
        if differences:
            raise InputError(
                "A sensitivity map must be of the same model, examples and options. Received: "
                f"{', '.join(differences)}. Measure it anew with sensitivity_map()."
            )

    def losses(self, coupling: Coupling) -> Losses:
        """Return the output errors as the allocation takes them."""
        blocks = blocks_of(coupling) if self.blocks else ()
        inside = [
            [set(group.layers) <= set(block.layers) for group in coupling.groups]
            for block in blocks
        ]
        nested = [[other.index in block.inner for other in blocks] for block in blocks]
        return Losses(
            [group.interpolate() for group in self.groups],
            [block.output_error for block in self.blocks],
            np.array(inside, bool).reshape(len(blocks), len(coupling.groups)),
            np.array(nested, bool).reshape(len(blocks), len(blocks)),
        )

    def tempered(self, power: float) -> SensitivityMap:
        """Return the output errors to a power: above 1, small ones differ less from none."""
        return self._changed(
            lambda error, _: max(0.0, error) ** power,
            np.ones(len(self.groups)),
            np.ones(len(self.blocks)),
        )

    def scaled(self, groups: Numbers, blocks: Numbers) -> SensitivityMap:
        """Return the output errors times a factor for each group and each block."""
        return self._changed(operator.mul, groups, blocks)

    def _changed(
        self, change: Callable[[float, float], float], groups: Numbers, blocks: Numbers
    ) -> SensitivityMap:
        """Return `change(error, factor)` for each error, with a factor a group and a block."""
        return replace(
            self,
            groups=tuple(
                replace(
                    group,
                    output_error=tuple(change(error, factor) for error in group.output_error),
                )
                for group, factor in zip(self.groups, groups.tolist(), strict=True)
            ),
            blocks=tuple(
                BlockSensitivity(block.name, change(block.output_error, factor))
                for block, factor in zip(self.blocks, blocks.tolist(), strict=True)
            ),
        )

    def screen(self) -> Summary:
        """Return a summary for the screen: the output error of each group at some widths."""
        missing = [""] * bool(self.blocks)
        rows = []
        for group in self.groups:
            units = len(group.scores)
            errors = np.interp(
                removed_counts(units), [0, *group.removed], [0.0, *group.output_error]
            )
            cells = [f"{error:.2g}" for error in errors]
            rows.append((group.name, f"{units:,}", *cells, *missing))
        blank = [""] * (1 + len(SHARES))
        rows += [(name, *blank, f"{error:.2g}") for name, error in self.blocks]
        return Summary(
            f"output errors of {len(self.groups)} groups, {len(self.blocks)} blocks",
            ("where a share of a layer's channels is kept, downstream layers reconstructed",),
            ("Layer", "channels", *(f"{100 * (1 - share):g} %" for share in SHARES),
             *(["removed"] * bool(self.blocks))),
            tuple(rows),
            self.notes,
            "groups and blocks",
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the map as JSON, atomically."""
        write_json(Path(path), asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> SensitivityMap:
        """Read a map that `save` wrote.

        Raises:
            InputError: No such file, or it holds something else.
        """
        record = read_json(Path(path))
        if "base" in record:
            raise InputError(
                f"A sensitivity map must hold output errors. Received: '{path}', which version 0.1 "
                "measured as accuracies. Measure it anew with sensitivity_map()."
            )
        try:
            groups = tuple(
                GroupSensitivity(
                    row["name"],
                    tuple(row["removed"]),
                    tuple(row["output_error"]),
                    tuple(row["scores"]),
                )
                for row in record["groups"]
            )
            blocks = tuple(BlockSensitivity(*row) for row in record["blocks"])
            return cls(groups, blocks, tuple(record["notes"]), record["origin"])
        except (KeyError, TypeError) as error:
            raise InputError(
                f"A sensitivity map must be a file written by save(). Received: '{path}' ({error})."
            ) from None


def describe_origin(context: Context, criterion: str, blocks: bool) -> dict[str, Any]:
    """Return a record of the model, examples and options of a sensitivity map.

    Args:
        context: Model, examples, aggregation and seed.
        criterion: Name of what orders the channels of a group.
        blocks: Whether blocks are measured.
    """
    coupling, data = context.coupling, context.data
    assert data is not None, "output errors are measured on examples"
    model = f"{weights_hash(coupling.program.model)} {coupling.whole.tolist()}"
    order = np.random.default_rng(context.seed).permutation(len(data.train))[: context.examples]
    part = data.train.take(order)
    digest = hashlib.sha256(data.preprocess.identity.encode())
    for name, values in (*named(part.x), *named(part.y)):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return {
        "model": hashlib.sha256(model.encode()).hexdigest()[:16],
        "examples": digest.hexdigest()[:16],
        "criterion": criterion,
        "aggregate": context.aggregate,
        "blocks": blocks,
        "seed": context.seed,
    }
