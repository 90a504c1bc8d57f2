"""Which run a model comes from, and what it has learnt there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import opened
from compress.core.atomic_files import read_json, replacing
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing
from compress.data.leaks import TOLERATED
from compress.data.scaled_rows import KnownRows, RowSketch, as_rows
from compress.plan import DataOptions
from compress.run.directory import RunFolder

Keys = npt.NDArray[np.uint64]
KINDS = ("train", "val", "before", "taught")
SKETCH = ("rows", "centre", "spread", "low", "high")
SCALED = ("scaled_train", "scaled_val")
"""What `examples.npz` holds: the run's parts, what its models had learnt before they came, and
what the teachers of its compressed models had learnt; of tables also some of the training rows and
keys by which rows are recognized under other scales of the columns (older records have none)."""


@dataclass(frozen=True)
class Origin:
    """The run whose folder a model's file lies in.

    Attributes:
        file: The model's.
        folder: The run's.
        data: The content of its data.json.
    """

    file: Path
    folder: RunFolder
    data: dict[str, Any]

    @property
    def preprocess(self) -> Preprocessing | None:
        """The scaling that the run's models are fed with."""
        stored = self.data.get("preprocess")
        return Preprocessing.from_json(stored) if stored is not None else None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The run's class names, in label order."""
        return tuple(self.data.get("class_names", ())) or None

    @property
    def options(self) -> str:
        """The options that give the run's parts, as the command line takes them."""
        plan = self._plan()
        data = plan.get("data")
        data = data if isinstance(data, dict) else {}
        words = ["--data", self.data.get("source", ""), "--seed", plan.get("seed", 0)]
        for name in ("val_fraction", "test_fraction"):
            words += [f"--{name.replace('_', '-')}", data.get(name, getattr(DataOptions, name))]
        for name in ("group_column", "time_column"):
            words += [f"--{name.replace('_', '-')}", data[name]] if data.get(name) else []
        return shlex.join(str(word) for word in words)

    def _plan(self) -> dict[str, Any]:
        record = read_json(self.folder.plan_path) if self.folder.plan_path.is_file() else {}
        plan = record.get("plan")
        return plan if isinstance(plan, dict) else {}

    @property
    def _compressed(self) -> bool:
        """Whether the model is a compressed one: others have a record of their training beside."""
        record = self.file.with_name(f"{self.file.stem}.json")
        return self.file.parent == self.folder.models and not record.is_file()

    @property
    def _on_validation(self) -> bool:
        """Whether the model is of a final training, or made of one, on the validation part."""
        final = self._plan().get("final")
        wanted = isinstance(final, dict) and bool(final.get("on_validation"))
        return wanted and (self._compressed or self.file.parent == self.folder.final)

    def learnt(self) -> Keys | None:
        """Returns the keys of all examples that the model has learnt; None: not recorded.

        Raises:
            InputError: The record cannot be read.
        """
        stored = self.examples()
        if stored is None:
            return None
        parts = ["train", "before"]
        parts += ["taught"] if self._compressed else []
        parts += ["val"] if self._on_validation else []
        return np.unique(np.concatenate([stored[part] for part in parts]))

    def learnt_validation(self) -> bool:
        """Tells whether the model has learnt the run's own validation part.

        Raises:
            InputError: The record cannot be read.
        """
        stored, learnt = self.examples(), self.learnt()
        if stored is None or learnt is None:
            return self._on_validation
        fresh = stored["val"][~np.isin(stored["val"], stored["train"])]
        return bool(np.isin(fresh, learnt).sum() > TOLERATED * len(stored["val"]))

    def learned_rows(self) -> KnownRows | None:
        """Return the rows of the run's table that the model has learned; None: not recorded.

        Raises:
            InputError: The record cannot be read.
        """
        return self._rows(SCALED if self._on_validation else SCALED[:1])

    def rows(self) -> KnownRows | None:
        """Return all rows that the run has trained on or chosen by; None: not recorded.

        Raises:
            InputError: The record cannot be read.
        """
        return self._rows(SCALED)

    def _rows(self, names: Sequence[str]) -> KnownRows | None:
        if not self.folder.examples.is_file():
            return None
        with opened(self.folder.examples) as archive:
            stored = archive.read((*SKETCH, *SCALED))
        if not {*SKETCH, *SCALED} <= stored.keys():
            return None
        sketch = RowSketch(**{name: stored[name] for name in SKETCH})
        return KnownRows(sketch, np.concatenate([stored[name] for name in names], axis=1))

    def examples(self) -> dict[str, Keys] | None:
        """Returns what `examples.npz` holds, or None where the run kept none.

        Raises:
            InputError: It cannot be read.
        """
        path = self.folder.examples
        if not path.is_file():
            return None
        with opened(path) as archive:
            stored = archive.read(KINDS)
        if stored.keys() != set(KINDS) or any(keys.dtype != np.uint64 for keys in stored.values()):
            raise InputError(
                f"'{path}' must be the run's record of its examples: {', '.join(KINDS)}. "
                f"Received: {', '.join(archive.names) or 'nothing'}."
            )
        return stored


def origin_of(path: Path) -> Origin | None:
    """Returns the run that a model comes from, or None where it lies in no run's folder.

    Args:
        path: Of the model; a link is followed.

    Raises:
        InputError: The run's data.json cannot be read.
    """
    file = path.resolve()
    folder = RunFolder(file.parent.parent)
    if file.parent not in (folder.models, folder.final) or not folder.data.is_file():
        return None
    return Origin(file, folder, folder.read_data_record())


def write_examples(
    folder: RunFolder, data: Dataset, before: Sequence[Path] = (), taught: Sequence[Path] = ()
) -> None:
    """Records by their keys which examples a run's models learn.

    Args:
        folder: The run's.
        data: Its data.
        before: Files of the models that it begins with: their past is its models' past.
        taught: Files of teachers from elsewhere.
    """
    with replacing(folder.examples) as temporary:
        record: dict[str, Any] = {
            "train": np.unique(data.keys["train"]),
            "val": np.unique(data.keys["val"]),
            "before": past_of(before),
            "taught": past_of(taught),
            **_scaled_record(data),
        }
        np.savez(temporary, **record)


def _scaled_record(data: Dataset) -> dict[str, npt.NDArray[Any]]:
    """Return by what rows of a table are recognized in other scales; {}: these are no tables."""
    rows = {part: as_rows(data.split(part).x) for part in ("train", "val")}
    if rows["train"] is None or rows["val"] is None:
        return {}
    sketch = RowSketch.of(rows["train"])
    return {
        **{name: getattr(sketch, name) for name in SKETCH},
        **{f"scaled_{part}": sketch.keys(held) for part, held in rows.items() if held is not None},
    }


def past_of(paths: Sequence[Path]) -> Keys:
    """Returns the keys of all examples that any of these models is known to have learnt."""
    found: list[Keys] = [np.empty(0, np.uint64)]
    for path in paths:
        origin = origin_of(path)
        learnt = origin.learnt() if origin is not None else None
        if learnt is not None:
            found.append(learnt)
    return np.unique(np.concatenate(found))
