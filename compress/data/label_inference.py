"""Inference of the task from labels and a model's head, and conversion of labels.

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

ReadFunction = Callable[[Any, str], Array]
"""Function (values, name for errors) -> array."""


@dataclass(frozen=True)
class Head:
    """The output of a model: activation, shape and input shape, which determine the task.

    Attributes:
        activation: "softmax", "sigmoid" or "linear" (no activation: outputs are logits or numbers).
        shape: Shape of the output for one example, the number of outputs last; None for open sizes.
        input_shape: Shape of one example; None for open sizes.
        has_custom_loss: Whether the model was compiled with a custom loss for this output.
    """

    activation: str
    shape: tuple[int | None, ...]
    input_shape: tuple[int | None, ...]
    has_custom_loss: bool = False

    @property
    def num_outputs(self) -> int:
        """The size of the last axis of the output; 0 if it is open."""
        return int(self.shape[-1] or 0)

    @property
    def num_position_axes(self) -> int:
        """The number of axes between the batch axis and the last axis."""
        return len(self.shape) - 1

    @property
    def inputs(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of an example by the input's name, in the form of `Heads.inputs`."""
        return {"": self.input_shape}


@dataclass(frozen=True)
class Heads:
    """Inputs and outputs of a model that has several, by name.

    Attributes:
        inputs: Shapes of one example by input name, in the model's order.
        outputs: Heads by output name; None: the head of the output is unknown.
    """

    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, Head | None]


def find_input_shape(head: Head | Heads | None) -> tuple[int | None, ...] | None:
    """Return the shape of one example of the first input; None if there is no model."""
    return None if head is None else next(iter(head.inputs.values()))


@dataclass(frozen=True)
class LabelFormat:
    """The task of labels, and the conversion of the labels.

    Attributes:
        kind: Kind of task.
        num_classes: Number of classes, labels or targets; 0: determined by the labels.
        is_one_hot: Whether labels are rows with a single 1, at the class.
        has_float_indices: Whether labels are class indices stored as floating point.
        notes: Notes for reports on the inference.
        shape: Shape of the model's output for one example, if it is known and has positions.
        class_names: Class names in the order of their indices, if the labels are names.
        output_formats: Label formats of several outputs (kind "several"), by output name.
    """

    kind: str
    num_classes: int = 0
    is_one_hot: bool = False
    has_float_indices: bool = False
    notes: tuple[str, ...] = ()
    shape: tuple[int | None, ...] = ()
    class_names: tuple[str, ...] = ()
    output_formats: Mapping[str, LabelFormat] = field(default_factory=dict)

    def read(self, labels: Any, name: str) -> Any:
        """Return labels in the form of a data set.

        Args:
            labels: Labels (n, ...), or such arrays by output name.
            name: Name of the labels, for errors.

        Raises:
            InputError: The labels have another format.
        """
        if self.output_formats:
            return {
                output: self.output_formats[output].read(output_labels, f"{name} '{output}'")
                for output, output_labels in labels.items()
            }
        if self.class_names:
            return _encode_class_names(labels, self.class_names, name)
        if self.is_one_hot:
            if labels.ndim != 2 or not _is_one_hot(labels):
                raise InputError(
                    f"{name} must be rows with one 1 each, as the training labels are. Received: "
                    f"shape {labels.shape}."
                )
            return TASKS[self.kind].read(labels.argmax(axis=1), name)
        if self.has_float_indices and labels.dtype.kind == "f" and _is_integral(labels):
            labels = labels.astype(np.int64)
        return TASKS[self.kind].read(labels, name, self.shape)


def infer_label_format(y: Any, head: Head | Heads | None, task: str | None) -> LabelFormat:
    """Return the format of labels, with the task inferred if it is not given.

    Args:
        y: Labels (n,), (n, 1), (n, columns), or (n, positions ...) with or without columns; for
            several outputs, such arrays by output name.
        head: Head of the model, if there is one.
        task: Kind of task given by the user, or "name=kind,name=kind" for several outputs. None:
            inferred from labels and head.

    Raises:
        InputError: Labels, head and task are inconsistent.
    """
    if isinstance(y, Mapping):
        return _infer_output_formats(y, head.outputs if isinstance(head, Heads) else {}, task)
    if isinstance(head, Heads):
        head = next(iter(head.outputs.values()))
    if not y.size:
        raise InputError(f"y must hold labels, (n, ...), n at least 1. Received: shape {y.shape}.")
    if task == CUSTOM or (task is None and head is not None and head.has_custom_loss):
        width = head.num_outputs if head is not None else 1
        note = "task custom: the model was compiled with a loss of its own; task= overrides it"
        return LabelFormat(CUSTOM, width, notes=() if task else (note,))
    is_column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if y.dtype.kind in "US":
        return _infer_named_classes(y, head, task, is_column)
    if (
        y.ndim > 2
        or (head is not None and head.num_position_axes)
        or (task and has_positions(task))
    ):
        return _infer_position_labels(y, head, task)
    notes: tuple[str, ...] = ()
    kind, activation = task, head.activation if head is not None else ""
    if kind is None:
        width = head.num_outputs if head is not None else 0
        kind, reason = (
            _infer_column_task(y, width, activation)
            if is_column
            else _infer_row_task(y, activation)
        )
        notes = _note_inferred(kind, reason, head, "outputs")
    one_hot = kind == "multiclass" and not is_column and _is_one_hot(y)
    has_float_indices = has_classes(kind) and is_column and y.dtype.kind == "f" and _is_integral(y)
    if one_hot and task is not None:
        notes = ("labels are one-hot rows: the class is the position of the 1",)
    return LabelFormat(
        kind, _count_classes(kind, y, head, is_column), one_hot, has_float_indices, notes
    )


def _note_inferred(kind: str, reason: str, head: Head | None, unit: str) -> tuple[str, ...]:
    by_head = (
        f" and the model's head ({head.activation}, {head.num_outputs} {unit})"
        if head is not None and head.num_outputs
        else ""
    )
    return (f"task {kind}, inferred from the labels ({reason}){by_head}; task= overrides it",)


def _infer_named_classes(
    y: Array, head: Head | None, task: str | None, is_column: bool
) -> LabelFormat:
    """Return the format of labels that are class names, indexed in alphabetical order."""
    names = tuple(decode_names(np.unique(y)))
    has_one_output = len(names) == 2 and head is not None and head.num_outputs == 1
    kind = task or ("binary" if has_one_output else "multiclass")
    if not is_column or not has_classes(kind):
        raise InputError(
            "y may hold names where each example is of one class, (n,). Received: names of shape "
            f"{y.shape} for a {kind} task."
        )
    if len(names) < 2:
        raise InputError(f"y must be of at least two classes. Received: '{names[0]}' alone.")
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    note = f"labels are names: classes are numbered by alphabetical order ({listed})"
    return LabelFormat(kind, len(names), notes=(note,), class_names=names)


def _encode_class_names(
    labels: Array, classes: tuple[str, ...], name: str
) -> npt.NDArray[np.int64]:
    """Return the index in `classes` of each label name, (n,) int64; raise for an unknown name."""
    indices = {text: index for index, text in enumerate(classes)}
    label_names = decode_names(labels.reshape(-1)) if labels.dtype.kind in "US" else []
    missing = next((text for text in label_names if text not in indices), None)
    if len(label_names) != len(labels) or missing is not None:
        received = f"type {labels.dtype}" if missing is None else f"'{missing}'"
        raise InputError(
            f"{name} must be names of the training part's classes. Received: {received}. Correct "
            "them, or add training examples of these classes."
        )
    return np.array([indices[text] for text in label_names], np.int64)


def _infer_position_labels(y: Array, head: Head | None, task: str | None) -> LabelFormat:
    kind, notes = task or "", tuple[str, ...]()
    if task is None:
        kind, reason = _infer_position_task(y, head)
        notes = _note_inferred(kind, reason, head, "outputs a position")
    shape = head.shape if head is not None and head.num_position_axes else ()
    num_outputs = head.num_outputs if head is not None else 0
    return LabelFormat(kind, num_outputs or TASKS[kind].names_of(y), notes=notes, shape=shape)


def _infer_position_task(y: Array, head: Head | None) -> tuple[str, str]:
    """Return the task of labels with one array per example, and the reason."""
    is_binary = bool(np.isin(y, (0, 1)).all())
    is_integer = y.dtype.kind in "iub"
    if head is None:
        return ("segmentation", "class indices") if is_integer else ("regression", "numbers")
    class_task = "tagging" if head.num_position_axes == 1 else "segmentation"
    has_indices = y.ndim == head.num_position_axes + 1 or y.shape[-1] == 1
    if head.activation == "softmax":
        if not has_indices and not is_binary:
            raise InputError(
                "y must be class indices or one-hot at every position for a model that ends in "
                f"softmax. Received: numbers of shape {y.shape}."
            )
        return class_task, "class indices" if has_indices else "one-hot"
    if is_binary and (head.activation == "sigmoid" or is_integer):
        if head.num_outputs > 1 and has_indices:
            return class_task, "class indices"
        return "masks", "0 and 1"
    if is_integer and has_indices and head.num_outputs > 1:
        return class_task, "class indices"
    return "regression", "numbers"


def _count_classes(kind: str, y: Array, head: Head | None, is_column: bool) -> int:
    if kind == "binary":
        return 2
    if kind == "multiclass":
        # the model may have more classes than these examples
        return head.num_outputs if head is not None else (0 if is_column else y.shape[1])
    return 1 if is_column else int(y.shape[1])


def _infer_column_task(y: Array, width: int, activation: str) -> tuple[str, str]:
    """Return the task of labels with one number per example, and the reason."""
    is_binary = bool(np.isin(y, (0, 1)).all())
    if y.dtype.kind == "f":
        if activation == "sigmoid" and width == 1 and is_binary:
            return "binary", "integers"
        if (activation == "softmax" or width > 1) and _is_integral(y) and activation != "sigmoid":
            return "multiclass", "integers"
        if activation == "softmax":
            raise InputError(
                "y must be class indices or one-hot rows for a model that ends in softmax. "
                "Received: numbers with fractions."
            )
        return "regression", "floating point"
    if width == 1 and activation == "sigmoid":
        return "binary", "0 and 1"
    if width == 1 and activation == "linear":
        return ("binary", "0 and 1") if is_binary else ("regression", "numbers")
    return "multiclass", "class indices"


def _infer_row_task(y: Array, activation: str) -> tuple[str, str]:
    """Return the kind of task of label rows (n, columns), and the reason for the user."""
    is_binary = bool(np.isin(y, (0, 1)).all())
    if activation == "sigmoid" and is_binary:
        return "multilabel", "rows of 0 and 1"
    if is_binary and _is_one_hot(y):
        return "multiclass", "one-hot rows"
    if activation == "softmax":
        raise InputError(
            "y must be class indices or one-hot rows for a model that ends in softmax. Received: "
            f"rows of shape {y.shape} that are not one-hot. Of probabilities give the argmax."
        )
    if is_binary:
        return "multilabel", "rows of 0 and 1"
    return "regression", "rows of numbers"


def _is_one_hot(rows: Array) -> bool:
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all())


def _is_integral(labels: Array) -> bool:
    return bool(np.isfinite(labels).all() and (labels == np.floor(labels)).all())


def read_by_name(
    values: Any, names: Sequence[str], argument: str, read: ReadFunction
) -> dict[str, Array]:
    """Return arrays by name, in the order of the names.

    Args:
        values: A mapping by these names, or a list or tuple in their order.
        names: Names of the model's inputs or outputs.
        argument: "x" or "y", for the error.
        read: Function that converts the user's values to an array.

    Raises:
        InputError: The names or the number of arrays differ.
    """
    if isinstance(values, Mapping):
        if set(values) != set(names):
            raise InputError(
                f"{argument} must have the names {', '.join(names)}. Received: "
                f"{', '.join(map(str, values))}."
            )
        return {name: read(values[name], f"{argument} '{name}'") for name in names}
    arrays = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(arrays) != len(names):
        raise InputError(
            f"{argument} must be {len(names)} arrays ({', '.join(names)}). Received: {len(arrays)}."
        )
    return {
        name: read(part, f"{argument} '{name}'") for name, part in zip(names, arrays, strict=True)
    }


def check_labels(labels: Any, outputs: Sequence[str], name: str) -> Any:
    """Check that labels are numbers or names, and return several outputs in the model's order."""
    if outputs:
        return read_by_name(labels, outputs, name, _check_label_array)
    return _check_label_array(labels, name)


def _check_label_array(labels: Any, name: str) -> Any:
    if isinstance(labels, dict) or labels.dtype.kind not in "fiubUS" or not labels.ndim:
        received = (
            f"arrays {', '.join(labels)}" if isinstance(labels, dict)
            else f"shape {labels.shape}, type {labels.dtype}"
        )  # fmt: skip
        raise InputError(f"{name} must be numbers or names. Received: {received}.")
    return labels


def list_port_names(head: Head | Heads | None, side: str) -> list[str]:
    """Return the names of a model's "inputs" or "outputs" if it has several, else []."""
    names = list(getattr(head, side)) if isinstance(head, Heads) else []
    return names if len(names) > 1 else []


def _infer_output_formats(
    y: Mapping[str, Array], heads: Mapping[str, Head | None], task: str | None
) -> LabelFormat:
    """Return the label format of each output; errors and notes begin with the output's name."""
    tasks = _parse_output_tasks(task or AUTO, list(y))
    output_formats = {}
    for name, labels in y.items():
        try:
            output_formats[name] = infer_label_format(labels, heads.get(name), tasks[name])
        except InputError as error:
            raise InputError(f"Output '{name}': {error}") from None
    notes = (
        f"output '{name}': {note}"
        for name, output_format in output_formats.items()
        for note in output_format.notes
    )
    return LabelFormat("several", notes=tuple(notes), output_formats=output_formats)


def _parse_output_tasks(text: str, names: Sequence[str]) -> dict[str, str | None]:
    """Return the given task of each output; None: inferred from labels and head.

    Args:
        text: "auto", "custom" (for all outputs), or "box=regression,class=multiclass".
        names: Names of the outputs.

    Raises:
        InputError: The text has another form, or names an unknown output.
    """
    if text == CUSTOM:  # the compiled model defines loss and metrics
        return dict.fromkeys(names, CUSTOM)
    tasks: dict[str, str | None] = dict.fromkeys(names)
    for item in text.split(",") if text != AUTO else ():
        name, sign, kind = item.partition("=")
        if not sign or name not in tasks:
            raise InputError(
                f"task must name an output each, like {names[0]}=regression. Its outputs are "
                f"{', '.join(names)}. Received: '{item}'."
            )
        tasks[name] = None if kind == AUTO else kind
    return tasks


def build_class_names(label_format: LabelFormat, labels: Array) -> tuple[str, ...]:
    """Return a name for each class, label or target: the labels' own names, or indices.

    Args:
        label_format: Format of the labels.
        labels: Labels in the form of a data set; they give the number of classes if the format does
            not.

    Raises:
        InputError: There is only one class.
    """
    if label_format.class_names:
        return label_format.class_names
    count = label_format.num_classes or int(labels.max()) + 1
    if count < 2 and not label_format.num_classes:
        raise InputError("y must be of at least two classes. Received: one.")
    return tuple(map(str, range(count)))


def decode_names(names: Array) -> list[str]:
    """Return names as texts, decoded if they are bytes."""
    if names.dtype.kind == "S":
        return [name.decode("utf-8", "backslashreplace") for name in names.tolist()]
    return [str(name) for name in names.tolist()]
