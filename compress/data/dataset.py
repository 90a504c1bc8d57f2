"""Checked data sets of three parts, examples without labels, and sharing between processes.

The main process of a run writes the parts of a large data set to files after splitting. Every
worker maps these files, so the operating system holds their pages once. Otherwise each worker would
load its own copy of the source.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import (
    Columns,
    list_arrays,
    list_named_arrays,
    take_examples,
    unwrap_columns,
)
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.data.parts import (
    SPLITS,
    Output,
    Split,
    check_split,
    format_shapes,
    is_finite,
    list_example_shapes,
)
from compress.data.preprocessing import Preprocessing
from compress.data.tasks import TASKS, Several, Task, create_task, has_classes

MIN_SHARED_BYTES = 32 * 2**20
"""Smallest size of the examples that is shared; each process loads smaller ones itself."""
_ABOUT_FILE = "about.json"
PredictFunction = Callable[[Any, Preprocessing], Any]
"""Function (raw examples, scaling) -> model outputs, (n, ..., outputs), float32, or by name."""
_LABEL_SAMPLE = 1000
"""Training examples used to estimate the chance loss where the inputs are the labels."""


class _ExampleSet:
    """Base of data sets with and without labels: shapes of the training examples."""

    name: str
    train: Split

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, without the batch axis; images are (H, W, C).

        Raises:
            InputError: Examples consist of several arrays.
        """
        shapes = self.input_shapes
        if len(shapes) != 1:
            raise InputError(
                f"Examples of '{self.name}' must be of one array here. Received: "
                f"{', '.join(shapes)}."
            )
        return next(iter(shapes.values()))

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one example of each array by its name; a single array has the name ""."""
        return list_example_shapes(self.train.x)


@dataclass(frozen=True)
class Dataset(_ExampleSet):
    """A data set: three parts, the kind of task, class names and input scaling.

    The training part trains, the validation part selects, and the test part is used once.

    Attributes:
        name: Name of the source, as the user gave it.
        train, val, test: The parts, with raw `x`; see `inputs` for model inputs. The test part may
            be empty where nothing is tested (see `require_test`).
        class_names: One name per class (label, target), in label order.
        preprocess: Map from raw `x` to model inputs.
        notes: Data that were skipped or changed during loading.
        kind: "multiclass", "binary" (two class names, one output), "multilabel", "regression";
            "segmentation", "tagging" and "masks" (labels at every position); "reconstruction" (the
            input is the label: y has rows without columns); "several" (see `outputs`); or
            "unlabelled" (the labels are a model's outputs, (n, ..., outputs)).
        max_value: Full-scale value of `x` where `load_data` read a file; None: inputs are scaled by
            `preprocess`, and no other scaling is considered.
        outputs: Task and class names of each output of a model with several outputs (kind
            "several"); `class_names` are then the names of the outputs.
        compiled: Tasks that a model was compiled with, by output name ("": the only output).
        metric: Selection metric, where it is not the first metric of the task.
        loss_weights: Weights of the outputs' losses, in the order of the outputs; (): see
            `compress.data.tasks.Several`.

    Raises:
        InputError: Lengths or shapes of the parts disagree, the training or validation part is
            empty, a label is out of range, a class has no training example, or an input is not
            finite.
    """

    name: str
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    preprocess: Preprocessing
    notes: tuple[str, ...] = ()
    kind: str = "multiclass"
    max_value: float | None = None
    outputs: tuple[Output, ...] = ()
    compiled: Mapping[str, Task] = field(default_factory=dict, repr=False, compare=False)
    metric: str = ""
    loss_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "binary" and self.num_classes != 2:
            raise InputError(
                f"A binary task must have two class names. Received: {self.num_classes} in "
                f"'{self.name}'."
            )
        for part in SPLITS if len(self.test) else SPLITS[:2]:
            check_split(
                self.split(part), part, self.name, self.num_classes, self.kind, self.outputs
            )
            shapes = list_example_shapes(self.split(part).x)
            if shapes != self.input_shapes:
                raise InputError(
                    f"Examples of '{self.name}' must have one shape. Received: "
                    f"{format_shapes(self.input_shapes)} in the training part, "
                    f"{format_shapes(shapes)} in the {part} part."
                )
        missing = np.flatnonzero(np.asarray(self.counts()["train"]) == 0)
        if len(missing) and has_classes(self.kind):
            raise InputError(
                f"Every class of '{self.name}' must occur in the training part. Received: no "
                f"example of class {missing[0]} ('{self.class_names[missing[0]]}')."
            )

    @cached_property
    def task(self) -> Task:
        """The task: how labels are interpreted, and how outputs are trained and evaluated."""
        labels = self.train.y
        if self.outputs:
            output_tasks = tuple(
                (
                    item.name,
                    self.compiled.get(item.name)
                    or create_task(item.kind, len(item.class_names), self.train.y[item.name]),
                )
                for item in self.outputs
            )
            return Several(output_tasks, self.loss_weights, main=self.metric)
        if self.compiled:
            return self.compiled[""]
        if self.gives_back:  # a sample suffices: the chance loss need not be exact
            index = np.linspace(0, len(self.train) - 1, min(_LABEL_SAMPLE, len(self.train)))
            labels = self.preprocess(take_examples(self.train.x, index.astype(np.int64)))
        task = create_task(self.kind, self.num_classes, labels)
        return task.judged_by(self.metric) if self.metric else task

    @property
    def gives_back(self) -> bool:
        """Whether the labels are the inputs themselves; `y` then has no columns."""
        return bool(TASKS[self.kind].of_inputs)

    def labels(self, of: Split) -> Any:
        """Return the targets of examples: labels, or model inputs for reconstruction.

        Args:
            of: A part, or some of its examples.
        """
        return self.preprocess(of.x) if self.gives_back else of.y

    @property
    def num_classes(self) -> int:
        """The number of classes, labels or targets."""
        return len(self.class_names)

    def split(self, part: str) -> Split:
        """Return the part named `part` ("train", "val" or "test").

        Raises:
            InputError: There is no such part.
        """
        if part not in SPLITS:
            raise InputError(f"part must be one of {', '.join(SPLITS)}. Received: {part}.")
        selected: Split = getattr(self, part)
        return selected

    def require_test(self) -> None:
        """Check that the test part has examples.

        Raises:
            InputError: The test part is empty.
        """
        if not len(self.test):
            raise InputError(
                f"'{self.name}' must have a test part: files are evaluated with it. Received: 0 "
                "examples. Give test=, or data that one can be split off from."
            )

    def inputs(self, part: str) -> Any:
        """Return the model inputs of a part: float32, scaled and normalised, (n, ...).

        For models with several inputs, return one array per input, by name.
        """
        return self.preprocess(self.split(part).x)

    def counts(self) -> dict[str, list[int]]:
        """Return the number of examples per class for each part, in label order.

        For several labels, masks and classes by position, count the examples that have the label.
        For regression, count all examples once per target; for several outputs, once per output.
        """
        if self.outputs:
            return {part: [len(self.split(part))] * len(self.outputs) for part in SPLITS}
        task = TASKS[self.kind]
        return {part: task.counts(self.split(part).y, self.num_classes) for part in SPLITS}

    @property
    def keys(self) -> dict[str, npt.NDArray[np.uint64]]:
        """The 64-bit hashes of the examples by part; see `compress.data.example_hashing`."""
        return {part: self.split(part).keys for part in SPLITS}

    def fingerprint(self) -> str:
        """Return a hash of all examples, labels and the scaling; equal data have equal hashes."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of scaling, task, x, y and weights, computed once."""
        digest = hashlib.sha256(self.preprocess.identity.encode())
        if self.kind != "multiclass":
            digest.update(self.kind.encode())
        for item in self.outputs:
            digest.update(f"{item.name}={item.kind}".encode())
        for part in SPLITS:
            split = self.split(part)
            # hash the memory in place: a copy as bytes would double the memory
            for name, values in (*list_named_arrays(split.x), *list_named_arrays(split.y)):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(values).view(np.uint8).data)
            if split.weight is not None:
                digest.update(split.weight.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class UnlabelledDataset(_ExampleSet):
    """Examples without labels, for activation statistics or calibration.

    Attributes:
        name: Name for error messages.
        train: The examples; their labels are rows without columns.
        preprocess: Map from raw `x` to model inputs.
        kind: Kind of task, if it was inferred from labels before these were dropped; else "".
        notes: Changes made during loading.
    """

    name: str
    train: Split
    preprocess: Preprocessing = field(default_factory=Preprocessing)
    kind: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.train):
            raise InputError(f"'{self.name}' must hold examples. Received: none.")
        if not all(map(is_finite, list_arrays(self.train.x))):
            raise InputError(
                f"Examples of '{self.name}' must be finite. Received: NaN or infinity."
            )

    @classmethod
    def from_arrays(cls, name: str, x: Columns, **settings: Any) -> UnlabelledDataset:
        """Return a data set of one array, (n, ...), or of several by name.

        Args:
            name: Name for error messages.
            x: Raw examples.
            **settings: Values of the other attributes.
        """
        return cls(name, Split.unlabelled(x), **settings)

    @property
    def val(self) -> Split:
        """The same examples: nothing is fitted, so no held-out part is needed."""
        return self.train


@contextmanager
def share_dataset(
    data: Dataset, folder: Path, *, min_bytes: int | None = None
) -> Iterator[tuple[Dataset, str]]:
    """Share a large data set with other processes for the duration of the context.

    Args:
        data: A data set; instances of subclasses are never shared.
        folder: Folder to create; one left by a killed run is removed first.
        min_bytes: Smallest size of the examples, in bytes, that is shared; None:
            `MIN_SHARED_BYTES`.

    Yields:
        The data set, mapped from files if it is shared; and the error message if the files could
        not be written, else "".
    """
    shutil.rmtree(folder, ignore_errors=True)
    size = sum(values.nbytes for part in SPLITS for values in list_arrays(data.split(part).x))
    if type(data) is not Dataset or size < (MIN_SHARED_BYTES if min_bytes is None else min_bytes):
        yield data, ""
        return
    try:
        try:
            _write_shared(data, folder)
            shared_data, problem = open_shared_dataset(folder) or data, ""
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            shared_data, problem = data, str(error)
        del data
        yield shared_data, problem
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_shared_dataset(folder: Path, fingerprint: str = "") -> Dataset | None:
    """Open a data set that another process shares.

    Args:
        folder: Folder of the shared data set.
        fingerprint: Expected fingerprint of the data set; "": any.

    Returns:
        The data set, whose examples are read from files on use; None if the folder has no data set
        or one with another fingerprint.
    """
    if not (folder / _ABOUT_FILE).is_file():
        return None
    about = read_json(folder / _ABOUT_FILE)
    if fingerprint not in ("", about.pop("fingerprint")):
        return None
    about["preprocess"] = Preprocessing.from_json(about["preprocess"])
    outputs = tuple(Output(name, kind, tuple(names)) for name, kind, names in about.pop("outputs"))
    columns = about.pop("columns")
    parts: dict[str, Any] = {part: _read_shared_split(folder, part, columns) for part in SPLITS}
    others: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in about.items()
    }
    return Dataset(**parts, **others, outputs=outputs)


def list_shared_files(folder: Path) -> list[Path]:
    """Return the files of a shared data set; [] if there is none.

    The last file marks the data set as complete and must be copied last.
    """
    if not (folder / _ABOUT_FILE).is_file():
        return []
    return [*sorted(folder.glob("*.npy")), folder / _ABOUT_FILE]


def _write_shared(data: Dataset, folder: Path) -> None:
    """Write a data set to a new folder: a .npy per array, then the JSON that marks it complete."""
    folder.mkdir(parents=True)
    for part in SPLITS:
        split = data.split(part)
        for name in ("x", "y", "weight"):
            values = getattr(split, name)
            for number, (_, array) in enumerate(
                list_named_arrays(values) if values is not None else ()
            ):
                np.save(_get_array_path(folder, part, name, number), np.ascontiguousarray(array))
    others = {
        field.name: getattr(data, field.name)
        for field in fields(Dataset)
        if field.name not in (*SPLITS, "compiled")
    }
    outputs = [(item.name, item.kind, item.class_names) for item in data.outputs]
    columns = {
        name: [key for key, _ in list_named_arrays(getattr(data.train, name))]
        for name in ("x", "y")
    }
    about = {
        **others,
        "preprocess": data.preprocess.to_json(),
        "outputs": outputs,
        "columns": columns,
        "fingerprint": data.fingerprint(),
    }
    # written last, to mark the data set as complete
    write_json(folder / _ABOUT_FILE, about)


def _read_shared_split(folder: Path, part: str, columns: dict[str, list[str]]) -> Split:
    """Read one part of a shared data set: inputs mapped copy-on-write, labels into memory."""
    y = {
        key: np.load(_get_array_path(folder, part, "y", number))
        for number, key in enumerate(columns["y"])
    }
    # copy-on-write: TensorFlow does not accept read-only arrays
    x = {
        key: np.load(_get_array_path(folder, part, "x", number), mmap_mode="c")
        for number, key in enumerate(columns["x"])
    }
    weight = _get_array_path(folder, part, "weight", 0)
    return Split(unwrap_columns(x), unwrap_columns(y), np.load(weight) if weight.exists() else None)


def _get_array_path(folder: Path, part: str, name: str, number: int) -> Path:
    return folder / f"{part}-{name}{number or ''}.npy"
