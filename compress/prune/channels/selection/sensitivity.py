"""Sensitivity map: output errors of pruned groups and of removed blocks, for any target."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.arrays import list_named_arrays
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.core.registry import build_renamed_getattr
from compress.core.summary import DisplayableResult, Summary
from compress.model.keras_internals import hash_weights
from compress.prune.channels.coupling.blocks import list_blocks
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.criteria import Context
from compress.prune.channels.selection.allowed_counts import Counts

SHARES = (0.25, 0.5, 0.625, 0.75, 0.875)
"""Removed shares of a group's channels at which the output error is measured."""


def list_removed_counts(units: int) -> list[int]:
    """Return the numbers of removed channels at which a group's output error is measured.

    There is one for each of `SHARES`; in small groups some are equal, or 0 for a single channel.
    """
    return [min(units - 1, max(1, round(share * units))) for share in SHARES]


class OutputErrors:
    """Output errors of each group at all channel counts, and without each block.

    Args:
        by_count: Output error of each group by number of removed units, (units + 1,).
        blocks: Output error without each block, (blocks,).
        inside: True for a group whose layers are all in a block, (blocks, groups).
        nested: True for blocks (second axis) inside a block (first axis), (blocks, blocks).
    """

    def __init__(
        self,
        by_count: Sequence[Numbers],
        blocks: Sequence[float],
        inside: npt.NDArray[np.bool_],
        nested: npt.NDArray[np.bool_],
    ) -> None:
        # infinity beyond the units of a group
        self.table = np.full((len(by_count), max(map(len, by_count))), np.inf)
        for row, part in zip(self.table, by_count, strict=True):
            row[: len(part)] = part
        self.blocks = np.asarray(blocks, float)
        self.inside, self.nested = inside, nested

    def __call__(self, removed: Counts, present: Counts) -> Numbers:
        """Return the sum of output errors, (...); groups and blocks in removed blocks add none.

        Args:
            removed: Removed units of each group, (..., groups).
            present: 1 for each kept block, 0 for each removed one, (..., blocks).
        """
        removed_blocks = present == 0
        hidden = (removed_blocks[..., :, None] & self.inside).any(-2)
        group_errors = np.where(hidden, 0.0, self.table[np.arange(len(self.table)), removed])
        covered = (removed_blocks[..., :, None] & self.nested).any(-2)
        return np.asarray(
            group_errors.sum(-1) + (self.blocks * (removed_blocks & ~covered)).sum(-1)
        )


class BlockSensitivity(NamedTuple):
    """The output error without one block, with all layers reconstructed.

    Attributes:
        name: Name of the block.
        output_error: Output error; see `compress.measure.file_agreement`.
    """

    name: str
    output_error: float


@dataclass(frozen=True)
class GroupSensitivity:
    """The output error of one pruned group at several channel counts.

    Attributes:
        name: Name of the group.
        removed: Numbers of removed channels (or heads), increasing.
        output_error: Output error at each number, with the layers that read the group
            reconstructed; see `compress.measure.file_agreement`.
        scores: Score of each channel; channels with the lowest scores are removed first.
    """

    name: str
    removed: tuple[int, ...]
    output_error: tuple[float, ...]
    scores: tuple[float, ...]

    def interpolate(self) -> Numbers:
        """Return the output error with 0 to all channels removed, (channels + 1,), increasing.

        Values between measured numbers are interpolated. With all channels removed, the value is
        twice that of the last measured number.
        """
        units = len(self.scores)
        errors = np.maximum.accumulate(np.maximum([0.0, *self.output_error], 0.0))
        values = [*errors, 2.0 * errors[-1] + 1e-12]
        counts = np.arange(units + 1)
        return np.asarray(np.interp(counts, [0, *self.removed, units], values) + 1e-9 * counts)


@dataclass(frozen=True, repr=False)
class SensitivityMap(DisplayableResult):
    """The output errors of all pruned groups of a model, measured once and used for any target.

    Attributes:
        groups: Groups in the order of the model.
        blocks: Blocks in the order of the model; (): blocks were not measured and are kept.
        notes: Notes on the channels' scores for the user.
        origin: Model, examples and options of the measurement; see `describe_origin`.
    """

    if not TYPE_CHECKING:  # a type checker must refuse unknown attributes
        __getattr__ = build_renamed_getattr(
            {
                "losses": "build_output_errors",
                "tempered": "apply_power",
                "scaled": "scale",
                "screen": "build_summary",
            }
        )

    groups: tuple[GroupSensitivity, ...]
    blocks: tuple[BlockSensitivity, ...] = ()
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    def check(self, context: Context, criterion: str, blocks: bool) -> None:
        """Check that the map was measured with the same model, examples and options.

        Args:
            context: Model, examples and seed.
            criterion: Name of the criterion that orders the channels of a group.
            blocks: Whether blocks may be removed.

        Raises:
            InputError: The map was measured differently.
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

    def build_output_errors(self, coupling: Coupling) -> OutputErrors:
        """Return the output errors as needed by the allocation."""
        blocks = list_blocks(coupling) if self.blocks else ()
        inside = [
            [set(group.layers) <= set(block.layers) for group in coupling.groups]
            for block in blocks
        ]
        nested = [[other.index in block.inner for other in blocks] for block in blocks]
        return OutputErrors(
            [group.interpolate() for group in self.groups],
            [block.output_error for block in self.blocks],
            np.array(inside, bool).reshape(len(blocks), len(coupling.groups)),
            np.array(nested, bool).reshape(len(blocks), len(blocks)),
        )

    def apply_power(self, power: float) -> SensitivityMap:
        """Return the output errors raised to a power; above 1, small errors count less."""
        return self._map_errors(
            lambda error, _: max(0.0, error) ** power,
            np.ones(len(self.groups)),
            np.ones(len(self.blocks)),
        )

    def scale(self, groups: Numbers, blocks: Numbers) -> SensitivityMap:
        """Return the output errors times a factor for each group and each block."""
        return self._map_errors(operator.mul, groups, blocks)

    def _map_errors(
        self, change: Callable[[float, float], float], groups: Numbers, blocks: Numbers
    ) -> SensitivityMap:
        """Return `change(error, factor)` of each error, with one factor per group and block."""
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

    def build_summary(self) -> Summary:
        """Return a summary for the screen: output errors at several channel counts."""
        missing = [""] * bool(self.blocks)
        rows = []
        for group in self.groups:
            units = len(group.scores)
            errors = np.interp(
                list_removed_counts(units), [0, *group.removed], [0.0, *group.output_error]
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
        """Return a map that was written by `save`.

        Raises:
            InputError: The file does not exist or is not a sensitivity map.
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
        context: Model, examples and seed.
        criterion: Name of the criterion that orders the channels of a group.
        blocks: Whether blocks are measured.
    """
    coupling, data = context.coupling, context.data
    assert data is not None, "output errors are measured on examples"
    model = f"{hash_weights(coupling.program.model)} {coupling.removable_counts.tolist()}"
    order = np.random.default_rng(context.seed).permutation(len(data.train))[: context.examples]
    part = data.train.take(order)
    digest = hashlib.sha256(data.preprocess.identity.encode())
    for name, values in (*list_named_arrays(part.x), *list_named_arrays(part.y)):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return {
        "model": hashlib.sha256(model.encode()).hexdigest()[:16],
        "examples": digest.hexdigest()[:16],
        "criterion": criterion,
        "aggregate": "mean",  # version 0.1 had others
        "blocks": blocks,
        "seed": context.seed,
    }
