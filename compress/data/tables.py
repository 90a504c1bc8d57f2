"""Tables, whatever file they lie in: one row an example, columns by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, one_line
from compress.data.fields import NAMES, NUMBER, Layout, Roles, roles_of
from compress.data.kinds import Asked
from compress.data.parts import RawData
from compress.data.pieces import Batch
from compress.data.reading import raw_data
from compress.data.rows import parts_of_rows

Array = npt.NDArray[Any]
WEIGHT = "weight"
SPLIT = "split"
"""Columns that are no inputs, where they are there."""
MOST_ROWS = 65_536
"""Rows that are read at a time, however short they are."""
_PARTS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""Parts by what the column of parts calls them."""


class Table(Protocol):
    """A table in a file.

    Attributes:
        layout: Its columns.
    """

    layout: Layout

    def batches(self, columns: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """Yields some rows of these columns at a time.

        Numbers are (n,), lists (n, ...), NaN where a value is missing; names are (n,) objects,
        texts or None.
        """


def read(table: Table, source: str, asked: Asked) -> RawData:
    """Reads a table; what is large goes to files as it comes.

    Args:
        table: The table.
        source: As the user named it.
        asked: Which columns are labels, what they mean, and the model's head.

    Raises:
        InputError: There is no label, inputs are no numbers, values are missing, or a part is of
            another name.
    """
    layout = table.layout
    options = asked.options
    roles = roles_of(
        layout, options.label, asked.head, bare=asked.bare, group=options.group_column,
        time=options.time_column,
    )  # fmt: skip
    _check_special(layout, roles)
    held = parts_of_rows(_by_part(table, roles), layout, roles, asked.head)
    return raw_data(held, source, asked, notes=roles.notes)


def _check_special(layout: Layout, roles: Roles) -> None:
    for name, kind in ((roles.weight, NUMBER), (roles.split, NAMES)):
        held = layout.fields.get(name)
        if held is not None and held.kind != kind:
            rule = (
                "holds the weights of examples and must be numbers" if kind == NUMBER
                else "says which part a row belongs to and must hold train, val or test"
            )  # fmt: skip
            raise InputError(
                f"Column '{name}' of {layout.where} {rule}. Received: {held.kind}. Rename the "
                "column where it is an input."
            )


def _by_part(table: Table, roles: Roles) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    """Yields rows with the part that they belong to."""
    for batch in table.batches(roles.read):
        count = len(next(iter(batch.values())))
        # rows that lack their part are refused with all that is missing
        if not roles.split or None in batch[roles.split]:
            yield "train", batch, [""] * count
            continue
        names, places = np.unique(batch[roles.split].astype(str), return_inverse=True)
        found = [_part(name, table.layout) for name in names.tolist()]
        for part in dict.fromkeys(found):
            rows = np.isin(places, [place for place, own in enumerate(found) if own == part])
            chosen = {column: values[rows] for column, values in batch.items()}
            yield part, chosen, [""] * int(rows.sum())


def _part(name: str, layout: Layout) -> str:
    part = _PARTS.get(name.strip().lower())
    if part is None:
        raise InputError(
            f"Column '{layout.split}' of {layout.where} must hold train, val or test. Received: "
            f"'{one_line(name)}'. Give it another name where it is an input."
        )
    return part
