"""Inference of the task from labels and a model's head, and reading of labels.

Models with several inputs or outputs have arrays by name, and a task for each output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.parts import Array
from compress.data.tasks import CUSTOM, TASKS, has_classes, has_positions
from compress.plan.data import AUTO

Read = Callable[[Any, str], Array]
"""(values, name for errors) -> array."""


@dataclass(frozen=True)
class Head:
    """The output of a model: activation, shape and input, which tell the task.

    Attributes:
        activation: "softmax", "sigmoid" or "linear" (none, so that outputs are logits or numbers).
        shape: Of its output for one example, the width last; open sizes are None.
        input_shape: Of one example; open sizes are None.
        own_loss: The model was compiled with a loss of the user's own for this output.
    """

    activation: str
    shape: tuple[int | None, ...]
    input_shape: tuple[int | None, ...]
    own_loss: bool = False

    @property
    def outputs(self) -> int:
        """The width of its output."""
        return int(self.shape[-1] or 0)

    @property
    def positions(self) -> int:
        """How many axes there are between the batch and the width."""
        return len(self.shape) - 1

    @property
    def inputs(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of an example by the input's name, as `Heads` has those of several."""
        return {"": self.input_shape}


@dataclass(frozen=True)
class Heads:
    """Inputs and outputs of a model that has several, by name.

    Attributes:
        inputs: Shapes of one example by the inputs' names, in the model's order.
        outputs: Heads by the outputs' names; None: nothing is known of one.
    """

    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, Head | None]


def first_shape(head: Head | Heads | None) -> tuple[int | None, ...] | None:
    """Return the shape of one example of the first input; None: there is no model."""
    return None if head is None else next(iter(head.inputs.values()))


@dataclass(frozen=True)
class Meaning:
    """The task of labels, and how they are read.

    Attributes:
        kind: Of the task.
        names: Number of classes, labels or targets; 0: as many as labels tell.
        one_hot: Rows have one 1, at the class.
        whole: Class indices that are written as floating point.
        notes: How it was told, for reports.
        shape: Of a model's output for one example, where it is known and has positions.
        classes: Where labels are the classes' names: these, in the order of their indices.
        each: Of several outputs (kind "several"): the meaning of each one's labels.
    """

    kind: str
    names: int = 0
    one_hot: bool = False
    whole: bool = False
    notes: tuple[str, ...] = ()
    shape: tuple[int | None, ...] = ()
    classes: tuple[str, ...] = ()
    each: Mapping[str, Meaning] = field(default_factory=dict)

    def read(self, labels: Any, name: str) -> Any:
        """Return labels as a data set holds them.

        Args:
            labels: (n, ...), or such arrays by the outputs' names.
            name: Of the labels, for errors.

        Raises:
            InputError: They are of another kind.
        """
        if self.each:
            return {
                output: self.each[output].read(own, f"{name} '{output}'")
                for output, own in labels.items()
            }
        if self.classes:
            return _indices(labels, self.classes, name)
        if self.one_hot:
            if labels.ndim != 2 or not _is_one_hot(labels):
                raise InputError(
                    f"{name} must be rows with one 1 each, as the training labels are. Received: "
                    f"shape {labels.shape}."
                )
            return TASKS[self.kind].read(labels.argmax(axis=1), name)
        if self.whole and labels.dtype.kind == "f" and _is_whole(labels):
            labels = labels.astype(np.int64)
        return TASKS[self.kind].read(labels, name, self.shape)


def meaning_of(y: Any, head: Head | Heads | None, task: str | None) -> Meaning:
    """Return the task of labels, inferred where it is not given.

    Args:
        y: (n,), (n, 1), (n, columns), or (n, positions ...) with columns or without; of several
            outputs such arrays by their names.
        head: Of the model, where there is one.
        task: What the user says, of several outputs see `_tasks_of`; None: labels and head tell.

    Raises:
        InputError: They disagree.
    """
    if isinstance(y, Mapping):
        return _of_outputs(y, head.outputs if isinstance(head, Heads) else {}, task)
    if isinstance(head, Heads):
        head = next(iter(head.outputs.values()))
    if not y.size:
        raise InputError(f"y must hold labels, (n, ...), n at least 1. Received: shape {y.shape}.")
    if task == CUSTOM or (task is None and head is not None and head.own_loss):
        width = head.outputs if head is not None else 1
        note = "task custom: the model was compiled with a loss of its own; task= overrides it"
        return Meaning(CUSTOM, width, notes=() if task else (note,))
    column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if y.dtype.kind in "US":
        return _by_name(y, head, task, column)
    if y.ndim > 2 or (head is not None and head.positions) or (task and has_positions(task)):
        return _by_position(y, head, task)
    notes: tuple[str, ...] = ()
    kind, ends = task, head.activation if head is not None else ""
    if kind is None:
        width = head.outputs if head is not None else 0
        kind, why = _of_column(y, width, ends) if column else _of_rows(y, ends)
        notes = _note_inferred(kind, why, head, "outputs")
    one_hot = kind == "multiclass" and not column and _is_one_hot(y)
    whole = has_classes(kind) and column and y.dtype.kind == "f" and _is_whole(y)
    if one_hot and task is not None:
        notes = ("labels are one-hot rows: the class is the position of the 1",)
    return Meaning(kind, _names(kind, y, head, column), one_hot, whole, notes)


def _note_inferred(kind: str, why: str, head: Head | None, unit: str) -> tuple[str, ...]:
    by_head = ""
    if head is not None and head.outputs:
        by_head = f" and the model's head ({head.activation}, {head.outputs} {unit})"
    return (f"task {kind}, inferred from the labels ({why}){by_head}; task= overrides it",)


def _by_name(y: Array, head: Head | None, task: str | None, column: bool) -> Meaning:
    """Read labels that are names of classes: indices by alphabetical order."""
    names = tuple(texts(np.unique(y)))
    one = len(names) == 2 and head is not None and head.outputs == 1
    kind = task or ("binary" if one else "multiclass")
    if not column or not has_classes(kind):
        raise InputError(
            "y may hold names where each example is of one class, (n,). Received: names of shape "
            f"{y.shape} for a {kind} task."
        )
    if len(names) < 2:
        raise InputError(f"y must be of at least two classes. Received: '{names[0]}' alone.")
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    note = f"labels are names: classes are numbered by alphabetical order ({listed})"
    return Meaning(kind, len(names), notes=(note,), classes=names)


def _indices(labels: Array, classes: tuple[str, ...], name: str) -> npt.NDArray[np.int64]:
    places = {text: place for place, text in enumerate(classes)}
    found = texts(labels.reshape(-1)) if labels.dtype.kind in "US" else []
    missing = next((text for text in found if text not in places), None)
    if len(found) != len(labels) or missing is not None:
        received = f"type {labels.dtype}" if missing is None else f"'{missing}'"
        raise InputError(
            f"{name} must be names of the training part's classes. Received: {received}."
        )
    return np.array([places[text] for text in found], np.int64)


def _by_position(y: Array, head: Head | None, task: str | None) -> Meaning:
    kind, notes = task or "", tuple[str, ...]()
    if task is None:
        kind, why = _kind_by_position(y, head)
        notes = _note_inferred(kind, why, head, "outputs a position")
    shape = head.shape if head is not None and head.positions else ()
    names = head.outputs if head is not None else 0
    return Meaning(kind, names or TASKS[kind].names_of(y), notes=notes, shape=shape)


def _kind_by_position(y: Array, head: Head | None) -> tuple[str, str]:
    """Return the task of labels that are an array for each example, and the reason."""
    yes_no = bool(np.isin(y, (0, 1)).all())
    whole = y.dtype.kind in "iub"
    if head is None:
        return ("segmentation", "class indices") if whole else ("regression", "numbers")
    of_classes = "tagging" if head.positions == 1 else "segmentation"
    indices = y.ndim == head.positions + 1 or y.shape[-1] == 1
    if head.activation == "softmax":
        if not indices and not yes_no:
            raise InputError(
                "y must be class indices or one-hot at every position for a model that ends in "
                f"softmax. Received: numbers of shape {y.shape}."
            )
        return of_classes, "class indices" if indices else "one-hot"
    if yes_no and (head.activation == "sigmoid" or whole):
        if head.outputs > 1 and indices:
            return of_classes, "class indices"
        return "masks", "0 and 1"
    if whole and indices and head.outputs > 1:
        return of_classes, "class indices"
    return "regression", "numbers"


def _names(kind: str, y: Array, head: Head | None, column: bool) -> int:
    if kind == "binary":
        return 2
    if kind == "multiclass":
        # a model knows classes that these examples may lack
        return head.outputs if head is not None else (0 if column else y.shape[1])
    return 1 if column else int(y.shape[1])


def _of_column(y: Array, width: int, ends: str) -> tuple[str, str]:
    """Return the task of labels that are one number an example, and the reason."""
    yes_no = bool(np.isin(y, (0, 1)).all())
    if y.dtype.kind == "f":
        if ends == "sigmoid" and width == 1 and yes_no:
            return "binary", "whole numbers"
        if (ends == "softmax" or width > 1) and _is_whole(y) and ends != "sigmoid":
            return "multiclass", "whole numbers"
        if ends == "softmax":
            raise InputError(
                "y must be class indices or one-hot rows for a model that ends in softmax. "
                "Received: numbers with fractions."
            )
        return "regression", "floating point"
    if width == 1 and ends == "sigmoid":
        return "binary", "0 and 1"
    if width == 1 and ends == "linear":
        return ("binary", "0 and 1") if yes_no else ("regression", "numbers")
    return "multiclass", "class indices"


def _of_rows(y: Array, ends: str) -> tuple[str, str]:
    zeros_and_ones = bool(np.isin(y, (0, 1)).all())
    if ends == "sigmoid" and zeros_and_ones:
        return "multilabel", "rows of 0 and 1"
    if zeros_and_ones and _is_one_hot(y):
        return "multiclass", "one-hot rows"
    if ends == "softmax":
        raise InputError(
            "y must be class indices or one-hot rows for a model that ends in softmax. Received: "
            f"rows of shape {y.shape} that are not one-hot. Of probabilities give the argmax."
        )
    if zeros_and_ones:
        return "multilabel", "rows of 0 and 1"
    return "regression", "rows of numbers"


def _is_one_hot(rows: Array) -> bool:
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all())


def _is_whole(labels: Array) -> bool:
    return bool(np.isfinite(labels).all() and (labels == np.floor(labels)).all())


def by_name(values: Any, names: Sequence[str], what: str, read: Read) -> dict[str, Array]:
    """Return arrays by name, in the order of the names.

    Args:
        values: A mapping by these names, or a list or tuple in their order.
        names: Of a model's inputs or outputs.
        what: "x" or "y", for the error.
        read: Makes an array of what the user gives.

    Raises:
        InputError: Other names, or another number of arrays.
    """
    if isinstance(values, Mapping):
        if set(values) != set(names):
            raise InputError(
                f"{what} must have the names {', '.join(names)}. Received: "
                f"{', '.join(map(str, values))}."
            )
        return {name: read(values[name], f"{what} '{name}'") for name in names}
    given = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(given) != len(names):
        raise InputError(
            f"{what} must be {len(names)} arrays ({', '.join(names)}). Received: {len(given)}."
        )
    return {name: read(part, f"{what} '{name}'") for name, part in zip(names, given, strict=True)}


def several(head: Head | Heads | None, side: str) -> list[str]:
    """Return the names of a model's "inputs" or "outputs" where it has several, else []."""
    names = list(getattr(head, side)) if isinstance(head, Heads) else []
    return names if len(names) > 1 else []


def _of_outputs(
    y: Mapping[str, Array], heads: Mapping[str, Head | None], task: str | None
) -> Meaning:
    tasks = _tasks_of(task or AUTO, list(y))
    each = {}
    for name, labels in y.items():
        try:
            each[name] = meaning_of(labels, heads.get(name), tasks[name])
        except InputError as error:
            raise InputError(f"Output '{name}': {error}") from None
    notes = (f"output '{name}': {note}" for name, own in each.items() for note in own.notes)
    return Meaning("several", notes=tuple(notes), each=each)


def _tasks_of(text: str, names: Sequence[str]) -> dict[str, str | None]:
    """Return the given task of each output; None: labels and head tell.

    Args:
        text: "auto", "custom" (of all), or "box=regression,class=multiclass".
        names: Of the outputs.

    Raises:
        InputError: Another form, or an output that there is none of.
    """
    if text == CUSTOM:  # what the model was compiled with says all
        return dict.fromkeys(names, CUSTOM)
    said: dict[str, str | None] = dict.fromkeys(names)
    for item in text.split(",") if text != AUTO else ():
        name, sign, kind = item.partition("=")
        if not sign or name not in said:
            raise InputError(
                f"task must name an output each, like {names[0]}=regression. Its outputs are "
                f"{', '.join(names)}. Received: '{item}'."
            )
        said[name] = None if kind == AUTO else kind
    return said


def class_names_of(meaning: Meaning, labels: Array) -> tuple[str, ...]:
    """Return a name for each class, label or target: the labels' own, or their indices.

    Args:
        meaning: Of the labels.
        labels: As it reads them: they tell how many there are where it does not.

    Raises:
        InputError: They are of one class.
    """
    if meaning.classes:
        return meaning.classes
    count = meaning.names or int(labels.max()) + 1
    if count < 2 and not meaning.names:
        raise InputError("y must be of at least two classes. Received: one.")
    return tuple(map(str, range(count)))


def texts(names: Array) -> list[str]:
    """Return names as texts, of bytes too."""
    if names.dtype.kind == "S":
        return [name.decode("utf-8", "backslashreplace") for name in names.tolist()]
    return [str(name) for name in names.tolist()]
