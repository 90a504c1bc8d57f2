"""Data that were handed over in Python: a run's worker processes are given them, not a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.handed_over import name_of
from compress.train.given import dataset_for

if TYPE_CHECKING:
    import keras

NOTE = "the data were handed over in Python: commands that are shown need them as a file, by --data"


@dataclass(frozen=True)
class GivenData:
    """What `run` was given in place of a name.

    Attributes:
        data: What `compress.as_dataset` takes.
        val, test: Parts beside it.
        options: Of `DataOptions`, those that were given.
        groups, time: Of the examples, beside them.
    """

    data: Any
    val: Any
    test: Any
    options: Mapping[str, Any]
    groups: Any = None
    time: Any = None

    @property
    def name(self) -> str:
        """What records call them."""
        return name_of(self.data)

    def dataset(self, model: keras.Model | None, seed: int) -> Dataset:
        """Makes the data set, with a test part.

        Args:
            model: The trained model that the search is around, if it is around one.
            seed: Of the splits.

        Raises:
            InputError: See `compress.as_dataset`; or it is a data set of a class of one's own,
                which cannot be handed on to other processes.
        """
        marks = {"groups": self.groups, "time": self.time}
        parts = {"val": self.val, "test": self.test, **marks, **self.options}
        made = dataset_for(model, self.data, seed=seed, testing=True, **parts)
        if type(made) is not Dataset:
            raise InputError(
                f"Data of a run must be a Dataset, which other processes can be given. Received: "
                f"{type(made).__name__}. Name the function that makes it: 'module:function'."
            )
        # one that was read by name can be read by that name again
        return made if made.max_value is not None else replace(made, notes=(*made.notes, NOTE))
