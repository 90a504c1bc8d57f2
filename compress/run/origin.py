"""The run behind a model: its training examples and number of epochs.

Training code writes records beside models; some of their keys are read here.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from compress.core.arguments import convert_json
from compress.core.arrays import open_npz
from compress.core.atomic_files import list_complete_files, read_json, replace_file, write_json
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing
from compress.data.leakage import Keys
from compress.data.parts import SPLITS
from compress.plan import DataOptions
from compress.run.directory import LOG, RunFolder

EXAMPLE_KINDS = ("train", "val", "before", "taught")
"""Arrays of hashes in `examples.npz`.

They are of examples of the run's parts, examples that its initial models were trained on
("before"), and examples that the teachers of its compressed models were trained on ("taught").
Older records of tables have more arrays, which are ignored.
"""


@dataclass(frozen=True)
class Origin:
    """The run whose folder contains a model's file.

    Attributes:
        file: The model's file.
        folder: The run's folder.
        data: Content of its data.json.
    """

    file: Path
    folder: RunFolder
    data: dict[str, Any]

    @property
    def preprocess(self) -> Preprocessing | None:
        """The input scaling of the run's models."""
        stored = self.data.get("preprocess")
        return Preprocessing.from_json(stored) if stored is not None else None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The run's class names, in label order."""
        return tuple(self.data.get("class_names", ())) or None

    @property
    def options(self) -> str:
        """The command-line options that reproduce the run's parts."""
        path = self.folder.plan_path
        plan = self.folder.read_plan_record()["plan"] if path.is_file() else {}
        data = convert_json(plan.get("data", {}), dict[str, Any], f"'{path}': plan.data")
        words = ["--data", self.data.get("source", ""), "--seed", plan.get("seed", 0)]
        for name in ("val_fraction", "test_fraction"):
            words += [f"--{name.replace('_', '-')}", data.get(name, getattr(DataOptions, name))]
        for name in ("group_column", "time_column"):
            words += [f"--{name.replace('_', '-')}", data[name]] if data.get(name) else []
        return shlex.join(str(word) for word in words)

    @property
    def _is_compressed(self) -> bool:
        """Whether the model is compressed; other models have a training record beside them."""
        record = self.file.with_name(f"{self.file.stem}.json")
        return self.file.parent == self.folder.models and not record.is_file()

    def read_trained_keys(self) -> Keys | None:
        """Return the hashes of all examples that the model was trained on; None: not recorded.

        Raises:
            InputError: The record cannot be read.
        """
        stored = self.read_examples()
        if stored is None:
            return None
        kinds = ["train", "before", *(["taught"] if self._is_compressed else [])]
        return np.unique(np.concatenate([stored[kind] for kind in kinds]))

    def read_examples(self) -> dict[str, Keys] | None:
        """Return the content of examples.npz; None if the run has none.

        Raises:
            InputError: The file cannot be read.
        """
        path = self.folder.examples
        if not path.is_file():
            return None
        with open_npz(path) as archive:
            stored = archive.read_arrays(EXAMPLE_KINDS)
        if stored.keys() != set(EXAMPLE_KINDS) or any(
            keys.dtype != np.uint64 for keys in stored.values()
        ):
            raise InputError(
                f"'{path}' must be the run's record of its examples: {', '.join(EXAMPLE_KINDS)}. "
                f"Received: {', '.join(archive.names) or 'nothing'}."
            )
        return stored


@dataclass(frozen=True)
class TrainingHistory:
    """A model's training so far.

    Attributes:
        epochs: Number of epochs; None: unknown, for a model that does not come from a run.
        is_continued: Whether it started from trained weights, whose epochs are not counted; only
            in runs of older versions.
    """

    epochs: int | None = None
    is_continued: bool = False


UNKNOWN_TRAINING = TrainingHistory()


class _TrainingRecord(TypedDict, total=False):
    """The record beside a model, with the history of its epochs."""

    history: list[dict[str, Any]]


class _RetrainingRecord(TypedDict):
    """The record of a final or further training: name of the model and number of epochs."""

    model: str
    epochs: int


def find_origin(path: Path) -> Origin | None:
    """Return the run of a model; None if the model is not in a run's folder.

    Args:
        path: Path of the model; links are followed.

    Raises:
        InputError: The run's data.json or plan.json cannot be read, or version 0.1 trained models
            of the run on its validation part.
    """
    file = path.resolve()
    folder = RunFolder(file.parent.parent)
    if file.parent not in (folder.models, folder.final) or not folder.data.is_file():
        return None
    if folder.plan_path.is_file():
        folder.read_plan_record()  # refuses models that were trained on the validation part
    return Origin(file, folder, folder.read_data_record())


def read_training(path: Path) -> TrainingHistory:
    """Return a model's number of training epochs and whether they continue an earlier training.

    Args:
        path: Path of the model; a model in a run's folder has a record there.

    Raises:
        InputError: The record is corrupt, or the run's plan.json has another format.
    """
    origin = find_origin(path)
    if origin is None or not origin.folder.plan_path.is_file():
        return UNKNOWN_TRAINING
    file, folder = origin.file, origin.folder
    plan = folder.read_plan_record()["plan"]
    where = f"'{folder.plan_path}'.plan.search"
    search_plan = convert_json(plan.get("search", {}), dict[str, Any], where)
    # older versions could search the sub-networks of a trained model
    is_around = str(search_plan.get("space")).startswith("around:")
    if file.parent == folder.final:
        for retraining in list_complete_files(folder.final, ".json"):
            content = convert_json(read_json(retraining), _RetrainingRecord, f"'{retraining}'")
            # the best model's file is named after the model, not after its record
            if file.stem in (retraining.stem, content["model"]):
                return TrainingHistory(content["epochs"], is_around)
        return UNKNOWN_TRAINING
    record = file.with_name(f"{file.stem}.json")
    if record.is_file():
        training = convert_json(read_json(record), _TrainingRecord, f"'{record}'")
        # older versions could initialize a candidate with another's weights: "inherit"
        return TrainingHistory(
            len(training.get("history", [])), is_around or bool(search_plan.get("inherit"))
        )
    # a compressed model has no training record: add fine-tuning to the original's epochs
    for compressed in folder.read_compressed():
        if (
            compressed.compressed_name == file.stem
            and compressed.dense_epochs is not None
            and compressed.finetuned is not None
        ):
            return TrainingHistory(
                compressed.dense_epochs + compressed.finetuned, compressed.dense_begun
            )
    return UNKNOWN_TRAINING


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
    folder: RunFolder,
    data: Dataset,
    initial_models: Sequence[Path] = (),
    teachers: Sequence[Path] = (),
) -> None:
    """Write hashes of the examples that a run's models are trained on.

    Args:
        folder: The run's folder.
        data: The run's data.
        initial_models: Files of models that the run starts from, whose training examples are
            included.
        teachers: Files of teachers from outside the run.
    """
    with replace_file(folder.examples) as temporary:
        np.savez(
            temporary,
            train=np.unique(data.keys["train"]),
            val=np.unique(data.keys["val"]),
            before=collect_trained_keys(initial_models),
            taught=collect_trained_keys(teachers),
        )


def collect_trained_keys(paths: Sequence[Path]) -> Keys:
    """Return the hashes of all known training examples of the given models."""
    keys: list[Keys] = [np.empty(0, np.uint64)]
    for path in paths:
        origin = find_origin(path)
        trained_keys = origin.read_trained_keys() if origin is not None else None
        if trained_keys is not None:
            keys.append(trained_keys)
    return np.unique(np.concatenate(keys))
