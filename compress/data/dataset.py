"""Checked data sets of three parts, examples without labels, and sharing between processes.

A run's process writes the parts of a large data set after splitting, and every worker maps these
files, so that the system holds their pages once. Otherwise each worker would load and hold the
source for itself.
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

from compress.core.arrays import Columns, arrays, named, taken, unnamed
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.data.parts import (
    SPLITS,
    Output,
    Split,
    check_split,
    is_finite,
    shapes_of,
    shapes_text,
)
from compress.data.preprocessing import Preprocessing
from compress.data.tasks import TASKS, Several, Task, has_classes, make_task

LEAST_BYTES = 32 * 2**20
"""Examples that take less are loaded by each process for itself."""
_ABOUT = "about.json"
Answering = Callable[[Any, Preprocessing], Any]
"""(raw examples, their scaling) -> a model's outputs, (n, ..., outputs), float32, or by name."""
_GLANCE = 1000
"""Training examples that tell what guessing costs where they are labels too."""


class _Examples:
    """What examples with and without labels have: a training part, whose shapes count."""

    name: str
    train: Split

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, without the batch axis; images are (H, W, C).

        Raises:
            InputError: Examples are of several arrays.
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
        """The shape of one example of each array by its name, which is "" where there is one."""
        return shapes_of(self.train.x)


@dataclass(frozen=True)
class Dataset(_Examples):
    """A data set: three parts, the task's names, and how inputs are scaled.

    Training data trains, validation data selects, test data is touched once.

    Attributes:
        name: As the user named the source.
        train, val, test: The parts; `x` raw, see `inputs` for what a model is fed. The test part
            may be empty where nothing is tested (see `require_test`).
        class_names: One name a class (label, target), in label order.
        preprocess: Raw `x` -> model input.
        notes: What was skipped or changed while loading.
        kind: "multiclass", "binary" (two names, one output), "multilabel", "regression";
            "segmentation", "tagging" and "masks" (labels at every position); "reconstruction"
            (the input is the label: y has rows without columns); "several" (see `outputs`); or
            "unlabelled" (labels are what a model answers, (n, ..., outputs)).
        outputs: Of models with several outputs (kind "several"): what the labels of each mean;
            `class_names` are the outputs' names then.
        compiled: Tasks that a model was compiled with, by the outputs' names ("": the only one).
        loss_weights: Of the outputs' losses, in their order; (): see `compress.data.tasks.Several`.
        metric: The quality that judges, where it is not the task's first.
        max_value: What "full" means in `x`, where `load_data` read a file; None: inputs are
            fed as `preprocess` says and no other scaling is thought of.

    Raises:
        InputError: Lengths or shapes of the parts disagree, the training or the validation part
            is empty, a label is out of range, a class has no training example, or an input is
            not finite.
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
            shapes = shapes_of(self.split(part).x)
            if shapes != self.input_shapes:
                raise InputError(
                    f"Examples of '{self.name}' must have one shape. Received: "
                    f"{shapes_text(self.input_shapes)} in the training part, "
                    f"{shapes_text(shapes)} in the {part} part."
                )
        missing = np.flatnonzero(np.asarray(self.counts()["train"]) == 0)
        if len(missing) and has_classes(self.kind):
            raise InputError(
                f"Every class of '{self.name}' must occur in the training part. Received: no "
                f"example of class {missing[0]} ('{self.class_names[missing[0]]}')."
            )

    @cached_property
    def task(self) -> Task:
        """What labels mean, and how outputs are trained and judged."""
        labels = self.train.y
        if self.outputs:
            each = tuple(
                (
                    item.name,
                    self.compiled.get(item.name)
                    or make_task(item.kind, len(item.class_names), self.train.y[item.name]),
                )
                for item in self.outputs
            )
            return Several(each, self.loss_weights, main=self.metric)
        if self.compiled:
            return self.compiled[""]
        if self.gives_back:  # some of them: what guessing costs need not be exact
            index = np.linspace(0, len(self.train) - 1, min(_GLANCE, len(self.train)))
            labels = self.preprocess(taken(self.train.x, index.astype(np.int64)))
        task = make_task(self.kind, self.num_classes, labels)
        return task.judged_by(self.metric) if self.metric else task

    @property
    def gives_back(self) -> bool:
        """Whether labels are the inputs themselves; `y` holds none then."""
        return bool(TASKS[self.kind].of_inputs)

    def labels(self, of: Split) -> Any:
        """Return what outputs for examples are held against: labels, or inputs as they are fed.

        Args:
            of: A part, or some of its examples.
        """
        return self.preprocess(of.x) if self.gives_back else of.y

    @property
    def num_classes(self) -> int:
        """The number of classes, labels or targets."""
        return len(self.class_names)

    def split(self, part: str) -> Split:
        """Return the part named `part` ("train", "val" or "test")."""
        if part not in SPLITS:
            raise InputError(f"part must be one of {', '.join(SPLITS)}. Received: {part}.")
        chosen: Split = getattr(self, part)
        return chosen

    def require_test(self) -> None:
        """Check that there are examples to test on.

        Raises:
            InputError: There are none.
        """
        if not len(self.test):
            raise InputError(
                f"'{self.name}' must have a test part: files are judged by it. Received: 0 "
                "examples. Give test=, or data that one can be split off from."
            )

    def inputs(self, part: str) -> Any:
        """Return what a model is fed for a part: float32, scaled and normalised, (n, ...).

        Of models with several inputs an array each, by name.
        """
        return self.preprocess(self.split(part).x)

    def counts(self) -> dict[str, list[int]]:
        """Return the examples of each class, per part, in label order.

        Of several labels, masks and classes by position those that have it; of numbers all, once
        a target.
        """
        if self.outputs:
            return {part: [len(self.split(part))] * len(self.outputs) for part in SPLITS}
        task = TASKS[self.kind]
        return {part: task.counts(self.split(part).y, self.num_classes) for part in SPLITS}

    @property
    def keys(self) -> dict[str, npt.NDArray[np.uint64]]:
        """One 64-bit hash an example, by part; see `compress.data.keys`."""
        return {part: self.split(part).keys for part in SPLITS}

    def fingerprint(self) -> str:
        """Return a hash of all examples, labels and scaling: equal data, equal hash."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.preprocess.identity.encode())
        if self.kind != "multiclass":
            digest.update(self.kind.encode())
        for item in self.outputs:
            digest.update(f"{item.name}={item.kind}".encode())
        for part in SPLITS:
            split = self.split(part)
            # as it lies in memory: a copy of it as bytes would take as much again
            for name, values in (*named(split.x), *named(split.y)):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(values).view(np.uint8).data)
            if split.weight is not None:
                digest.update(split.weight.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Unlabelled(_Examples):
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
        """Make one of an array, (n, ...), or of several by name."""
        return cls(name, Split.unlabelled(x), **others)

    @property
    def val(self) -> Split:
        """The same examples: nothing is fitted to them that could be judged."""
        return self.train


@contextmanager
def shared(
    data: Dataset, place: Path, *, least_bytes: int | None = None
) -> Iterator[tuple[Dataset, str]]:
    """Share a large data set with other processes while the context lasts.

    Args:
        data: A data set; a subclass's stays as it is.
        place: A folder to make; one that a killed run has left is removed first.
        least_bytes: Examples that take less are not shared; default: `LEAST_BYTES`.

    Yields:
        The data set, mapped from files where it is shared, and why it is not, where the files
        could not be written.
    """
    shutil.rmtree(place, ignore_errors=True)
    size = sum(values.nbytes for part in SPLITS for values in arrays(data.split(part).x))
    if type(data) is not Dataset or size < (LEAST_BYTES if least_bytes is None else least_bytes):
        yield data, ""
        return
    try:
        try:
            _write(data, place)
            given, problem = open_shared(place) or data, ""
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            given, problem = data, str(error)
        del data
        yield given, problem
    finally:
        shutil.rmtree(place, ignore_errors=True)


def open_shared(place: Path, fingerprint: str = "") -> Dataset | None:
    """Open a data set that another process shares.

    Args:
        place: Its folder.
        fingerprint: Of the data set that is wanted; "": of any.

    Returns:
        The data set; its examples are read from files when they are used. None where there is
        none, or another.
    """
    if not (place / _ABOUT).is_file():
        return None
    about = read_json(place / _ABOUT)
    if fingerprint not in ("", about.pop("fingerprint")):
        return None
    about["preprocess"] = Preprocessing.from_json(about["preprocess"])
    outputs = tuple(Output(name, kind, tuple(names)) for name, kind, names in about.pop("outputs"))
    columns = about.pop("columns")
    parts: dict[str, Any] = {part: _read(place, part, columns) for part in SPLITS}
    others: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in about.items()
    }
    return Dataset(**parts, **others, outputs=outputs)


def files_of(place: Path) -> list[Path]:
    """Return the files of a shared data set, none where there is none.

    The last one says that all are there: whoever copies them copies it last.
    """
    if not (place / _ABOUT).is_file():
        return []
    return [*sorted(place.glob("*.npy")), place / _ABOUT]


def _write(data: Dataset, place: Path) -> None:
    place.mkdir(parents=True)
    for part in SPLITS:
        split = data.split(part)
        for name in ("x", "y", "weight"):
            held = getattr(split, name)
            for number, (_, array) in enumerate(named(held) if held is not None else ()):
                np.save(_file(place, part, name, number), np.ascontiguousarray(array))
    others = {
        field.name: getattr(data, field.name)
        for field in fields(Dataset)
        if field.name not in (*SPLITS, "compiled")
    }
    outputs = [(item.name, item.kind, item.class_names) for item in data.outputs]
    columns = {name: [key for key, _ in named(getattr(data.train, name))] for name in ("x", "y")}
    about = {
        **others,
        "preprocess": data.preprocess.to_json(),
        "outputs": outputs,
        "columns": columns,
        "fingerprint": data.fingerprint(),
    }
    # last: without it there is nothing to open
    write_json(place / _ABOUT, about)


def _read(place: Path, part: str, columns: dict[str, list[str]]) -> Split:
    y = {key: np.load(_file(place, part, "y", number)) for number, key in enumerate(columns["y"])}
    # "c": nothing is written, but TensorFlow takes no array that says it is read-only
    x = {
        key: np.load(_file(place, part, "x", number), mmap_mode="c")
        for number, key in enumerate(columns["x"])
    }
    weight = _file(place, part, "weight", 0)
    return Split(unnamed(x), unnamed(y), np.load(weight) if weight.exists() else None)


def _file(place: Path, part: str, name: str, number: int) -> Path:
    return place / f"{part}-{name}{number or ''}.npy"
