"""The run behind a model: the examples it was trained on, and for how many epochs.

Whoever trains models writes records beside them, of which some keys are read.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from compress.core.arguments import conform
from compress.core.arrays import opened
from compress.core.atomic_files import read_json, replacing, whole_files, write_json
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing
from compress.data.keys import KnownRows, RowSketch, as_rows, is_among
from compress.data.leaks import TOLERATED, Keys
from compress.data.parts import SPLITS
from compress.plan import DataOptions
from compress.run.directory import LOG, RunFolder

KINDS = ("train", "val", "before", "taught")
SKETCH = ("rows", "centre", "spread", "low", "high")
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
        data = self.section("data")
        words = ["--data", self.data.get("source", ""), "--seed", self._plan().get("seed", 0)]
        for name in ("val_fraction", "test_fraction"):
            words += [f"--{name.replace('_', '-')}", data.get(name, getattr(DataOptions, name))]
        for name in ("group_column", "time_column"):
            words += [f"--{name.replace('_', '-')}", data[name]] if data.get(name) else []
        return shlex.join(str(word) for word in words)

    def _plan(self) -> dict[str, Any]:
        record = read_json(self.folder.plan_path) if self.folder.plan_path.is_file() else {}
        plan = record.get("plan")
        return plan if isinstance(plan, dict) else {}

    def section(self, name: str) -> dict[str, Any]:
        """Return the options of one topic as the run's plan has them; {}: there are none."""
        section = self._plan().get(name)
        return section if isinstance(section, dict) else {}

    @property
    def _compressed(self) -> bool:
        """Whether the model is a compressed one: others have a record of their training beside."""
        record = self.file.with_name(f"{self.file.stem}.json")
        return self.file.parent == self.folder.models and not record.is_file()

    @property
    def _on_validation(self) -> bool:
        """Whether the model is of a final training, or made of one, on the validation part."""
        wanted = bool(self.section("final").get("on_validation"))
        return wanted and (self._compressed or self.file.parent == self.folder.final)

    def learnt(self) -> Keys | None:
        """Return the keys of all examples that the model has learnt; None: not recorded.

        Raises:
            InputError: The record cannot be read.
        """
        stored = self.examples()
        if stored is None:
            return None
        return np.unique(np.concatenate([stored[part] for part in self.learned_kinds]))

    @property
    def learned_kinds(self) -> list[str]:
        """Which of `KINDS` the model has learned."""
        taught = ["taught"] if self._compressed else []
        return ["train", "before", *taught, *(["val"] if self._on_validation else [])]

    def learnt_validation(self) -> bool:
        """Return whether the model has learnt the run's own validation part.

        Raises:
            InputError: The record cannot be read.
        """
        stored, learnt = self.examples(), self.learnt()
        if stored is None or learnt is None:
            return self._on_validation
        fresh = stored["val"][~is_among(stored["val"], stored["train"])]
        return bool(is_among(fresh, learnt).sum() > TOLERATED * len(stored["val"]))

    def rows(self, kinds: Sequence[str] = KINDS) -> list[KnownRows]:
        """Return the rows of tables that the run has to do with.

        Args:
            kinds: Of `KINDS`, those that are wanted.

        Raises:
            InputError: The record cannot be read.
        """
        if not self.folder.examples.is_file():
            return []
        with opened(self.folder.examples) as archive:
            # one table after the other: "train/0/rows", "before/0/rows", ...
            tables = [name.removesuffix("/keys") for name in archive.names if "/keys" in name]
            wanted = [table for table in tables if table.partition("/")[0] in kinds]
            stored = archive.read(
                f"{table}/{name}" for table in wanted for name in (*SKETCH, "keys")
            )
        return [
            KnownRows(
                RowSketch(**{name: stored[f"{table}/{name}"] for name in SKETCH}),
                stored[f"{table}/keys"],
            )
            for table in wanted
        ]

    def examples(self) -> dict[str, Keys] | None:
        """Return the content of `examples.npz`; None where the run kept none.

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


@dataclass(frozen=True)
class Trained:
    """A model's training so far.

    Attributes:
        epochs: Of it; None: unknown, the model comes from elsewhere.
        begun: It began with weights that had been trained before, which are not counted.
    """

    epochs: int | None = None
    begun: bool = False


UNKNOWN = Trained()


class _Trained(TypedDict, total=False):
    """The record beside a model: what was noted of each epoch."""

    history: list[dict[str, Any]]


class _TrainedAnew(TypedDict):
    """The record of a training at a run's end: whose model it is of, and how long it was."""

    model: str
    epochs: int


def origin_of(path: Path) -> Origin | None:
    """Return the run that a model comes from, or None where it lies in no run's folder.

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


def trained_for(path: Path) -> Trained:
    """Return for how many epochs a model was trained.

    Args:
        path: Of the model; one that lies in a run's folder has a record there.

    Raises:
        InputError: The record is damaged, or the run's plan.json is of another format.
    """
    origin = origin_of(path)
    if origin is None or not origin.folder.plan_path.is_file():
        return UNKNOWN
    file, folder = origin.file, origin.folder
    plan = folder.read_plan_record()["plan"]
    where = f"'{folder.plan_path}'.plan.search"
    beginning = conform(plan.get("search", {}), dict[str, Any], where)
    around = str(beginning.get("space")).startswith("around:")
    if file.parent == folder.final:
        for anew in whole_files(folder.final, ".json"):
            content = conform(read_json(anew), _TrainedAnew, f"'{anew}'")
            if file.stem in (anew.stem, content["model"]):  # the best has its model's name
                return Trained(content["epochs"], around)
        return UNKNOWN
    record = file.with_name(f"{file.stem}.json")
    if record.is_file():
        told = conform(read_json(record), _Trained, f"'{record}'")
        # earlier versions could begin a candidate with another's weights: "inherit"
        return Trained(len(told.get("history", [])), around or bool(beginning.get("inherit")))
    # a compressed model has no record of its own; its training is the dense model's and more
    for own in folder.read_compressed():
        if own.small == file.stem and own.dense_epochs is not None and own.finetuned is not None:
            return Trained(own.dense_epochs + own.finetuned, own.dense_begun)
    return UNKNOWN


def write_data_record(folder: RunFolder, data: Dataset) -> None:
    """Write data.json, which later uses of the run's models read, and log the data's notes."""
    for note in data.notes:
        LOG.info("note: %s", note)
    shapes = {name: list(shape) for name, shape in data.input_shapes.items()}
    write_json(
        folder.data,
        {
            "source": data.name,
            "task": data.kind,
            "input_shape": list(shapes[""]) if "" in shapes else [],
            **({} if "" in shapes else {"input_shapes": shapes}),
            "class_names": list(data.class_names),
            "counts": data.counts(),
            "examples": {part: len(data.split(part)) for part in SPLITS},
            "preprocess": data.preprocess.to_json(),
            "fingerprint": data.fingerprint(),
            "notes": list(data.notes),
        },
    )


def write_examples(
    folder: RunFolder, data: Dataset, before: Sequence[Path] = (), taught: Sequence[Path] = ()
) -> None:
    """Write keys of the examples that a run's models are trained on.

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
            **_record_rows(data, before, taught),
        }
        np.savez(temporary, **record)


def past_of(paths: Sequence[Path]) -> Keys:
    """Return the keys of all examples that any of these models is known to have learnt."""
    found: list[Keys] = [np.empty(0, np.uint64)]
    for path in paths:
        origin = origin_of(path)
        learnt = origin.learnt() if origin is not None else None
        if learnt is not None:
            found.append(learnt)
    return np.unique(np.concatenate(found))


def _record_rows(data: Dataset, before: Sequence[Path], taught: Sequence[Path]) -> dict[str, Any]:
    """Return sketches that recognize rows of tables in other scales; {}: there are no tables."""
    kinds: dict[str, list[KnownRows]] = {"train": [], "val": []}
    train = as_rows(data.train.x)
    if train is not None:
        sketch = RowSketch.of(train)
        for part in kinds:
            rows = as_rows(data.split(part).x)
            assert rows is not None, "parts have one shape"
            kinds[part].append(KnownRows(sketch, sketch.keys(rows)))
    for kind, paths in (("before", before), ("taught", taught)):
        origins = [origin for path in paths if (origin := origin_of(path)) is not None]
        kinds[kind] = [known for origin in origins for known in origin.rows(origin.learned_kinds)]
    return {
        f"{kind}/{place}/{name}": known.keys if name == "keys" else getattr(known.sketch, name)
        for kind, tables in kinds.items()
        for place, known in enumerate(tables)
        for name in (*SKETCH, "keys")
    }
