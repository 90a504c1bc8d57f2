"""Examples without labels, and inputs that are drawn from examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.columns import Columns, arrays, named, taken
from compress.core.errors import InputError
from compress.core.spool import CHUNK, Growing, is_large
from compress.data.examples import is_finite
from compress.data.parts import Split, only_shape, shapes_of
from compress.data.preprocessing import Preprocessing

if TYPE_CHECKING:
    from compress.data._base import Dataset


@dataclass(frozen=True)
class Unlabelled:
    """Examples without labels: enough to look at a model's activations, or to calibrate a file.

    Attributes:
        name: As errors call them.
        train: The examples; labels are rows without columns.
        preprocess: Raw `x` -> model input.
        kind: Of the task, where labels told it before they were left out; else "".
        notes: What was changed on the way.
    """

    name: str
    train: Split
    preprocess: Preprocessing = field(default_factory=Preprocessing)
    kind: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.train):
            raise InputError(f"'{self.name}' must hold examples. Received: none.")
        if not all(map(is_finite, arrays(self.train.x))):
            raise InputError(
                f"Examples of '{self.name}' must be finite. Received: NaN or infinity."
            )

    @classmethod
    def of(cls, name: str, x: Columns, **others: Any) -> Unlabelled:
        """Makes one of an array, (n, ...), or of several by name."""
        return cls(name, Split.unlabelled(x), **others)

    @property
    def val(self) -> Split:
        """The same examples: nothing is fitted to them that could be judged."""
        return self.train

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, without the batch axis; see `Dataset.input_shape`."""
        return only_shape(self.input_shapes, self.name)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one example of each array by its name, which is "" where there is one."""
        return shapes_of(self.train.x)


def drawn_inputs(data: Dataset | Unlabelled, count: int, seed: int) -> Any:
    """Returns what a model is fed of training examples drawn without replacement.

    Args:
        data: Labels are not looked at.
        count: Of examples, at most.
        seed: Of the draw.

    Returns:
        (n, ...), or such arrays by name; see `Dataset.inputs`.
    """
    order = np.random.default_rng(seed).permutation(len(data.train))[:count]
    x = data.train.x
    each = sum(4 * int(np.prod(values.shape[1:])) for values in arrays(x))
    if not is_large(each * len(order)):
        return data.preprocess(taken(x, order))
    step = max(1, CHUNK // each)
    grown: dict[str, Growing] = {}
    for start in range(0, len(order), step):
        part = data.preprocess(taken(x, order[start : start + step]))
        for name, values in named(part):
            grown.setdefault(name, Growing("examples that are drawn")).add(values)
    whole = {name: made.whole() for name, made in grown.items()}
    return whole if isinstance(x, Mapping) else next(iter(whole.values()))
