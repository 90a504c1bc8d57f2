"""Arrays, tensors and streams as data: fed as they are, labels read as the model's head says.

Nothing here is scaled: what somebody hands over in Python is what their model is fed. Scaling is
found for data that are read by name or path alone (`compress.data.load_data`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data._base import Array, Dataset, Split, Unlabelled, as_labels
from compress.data.preprocessing import Preprocessing
from compress.data.splitting import split_off
from compress.data.streams import gathered, is_stream, stream_name
from compress.plan import DataOptions
from compress.task import has_classes

LARGEST_WHOLE = 2**24
"""float32, in which models compute, holds all whole numbers up to this one."""
ARRAYS = "arrays"
"""The name of data that have none."""


@dataclass(frozen=True)
class Head:
    """What of a model says how labels are meant.

    Attributes:
        activation: "softmax", "sigmoid" or "linear" (none, so that outputs are logits or numbers).
        outputs: The width of its output.
        input_shape: Of one example; open sizes are None.
    """

    activation: str
    outputs: int
    input_shape: tuple[int | None, ...]


def arrays_of(data: Any, head: Head | None = None) -> tuple[Array, Any, Any, str]:
    """Returns what was handed over as arrays: examples, labels, weights, and what they are called.

    Args:
        data: `x`; `(x, y)`; `(x, y, weights)`; a `tf.data.Dataset` or a `keras.utils.PyDataset`
            of such. Arrays, tensors of any framework, lists of numbers.
        head: Of the model that is fed; its input shape tells batches from examples.

    Returns:
        x (n, ...), y (n, ...) or None, weights (n,) or None, and a name for messages.

    Raises:
        InputError: Several inputs, no numbers, a stream without end, or more than memory holds.
    """
    name = name_of(data)
    if is_stream(data):
        data = gathered(data, head.input_shape if head is not None else None)
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise InputError(
            f"data must be x, (x, y) or (x, y, weights). Received: a tuple of {len(parts)}."
        )
    x, y, weight = (*parts, None, None)[:3]
    labels = None if y is None else as_array(y, "y")
    examples = _examples(x, None if labels is None else len(labels), head)
    weights = None if weight is None else as_array(weight, "weights").astype(np.float32)
    for other, what in ((labels, "y"), (weights, "weights")):
        if other is not None and len(other) != len(examples):
            raise InputError(
                f"x and {what} must have equal lengths. Received: {len(examples)} and {len(other)}."
            )
    return examples, labels, weights, name


def name_of(data: Any) -> str:
    """Returns what data are called that were handed over."""
    return data.name if isinstance(data, Dataset) else stream_name(data) or ARRAYS


def as_array(value: Any, name: str) -> Array:
    """Returns numbers as a NumPy array with an axis of examples.

    Raises:
        InputError: They are none: names, objects, rows of unequal lengths.
    """
    if isinstance(value, dict):
        raise _several(f"a dictionary of {', '.join(map(str, value))}")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of numbers ({error}).") from None
    if array.dtype.name == "bfloat16":  # no type of NumPy's own
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub" or not array.ndim:
        kind = type(value).__name__ if array.dtype == object else f"type {array.dtype}"
        raise InputError(
            f"{name} must be numbers with an axis of examples. Received: {kind}, shape "
            f"{array.shape}."
        )
    return array


def _examples(x: Any, count: int | None, head: Head | None) -> Array:
    """Returns the examples; what several inputs look like is refused as such."""
    if isinstance(x, (list, tuple)) and x and all(hasattr(part, "shape") for part in x):
        own = tuple(x[0].shape)
        one_each = len(own) > 1 and (
            len(x) != count if count is not None else head is not None and len(own) > len(
                head.input_shape
            )
        )  # fmt: skip
        if one_each:
            raise _several(f"a list of {len(x)} arrays")
    array = as_array(x, "x")
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise InputError(
            f"x must have shape (n, ...), with one number an example at least. Received: "
            f"{array.shape}. Of one number an example give x[:, None]."
        )
    if array.dtype.kind in "iu" and array.dtype.itemsize > 2 and array.size:
        extreme = max(abs(int(array.min())), abs(int(array.max())))
        if extreme > LARGEST_WHOLE:
            raise InputError(
                f"Whole numbers of x must be within {LARGEST_WHOLE:,}: models are fed float32. "
                f"Received: {extreme:,}."
            )
    if array.dtype.kind == "f" and array.dtype != np.float32:
        with np.errstate(over="ignore"):  # infinity is refused later, and in words
            return array.astype(np.float32)
    return array


def _several(received: str) -> InputError:
    return InputError(
        "data must be of one input: models of several inputs are counted, exported and pruned "
        f"without data alone. Received: {received}."
    )


def labelled(
    data: Any,
    *,
    val: Any = None,
    test: Any = None,
    task: str | None = None,
    head: Head | None = None,
    seed: int = 0,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float | None = None,
) -> Dataset:
    """Makes a data set of arrays or a stream.

    Args:
        data: What `arrays_of` takes, with labels.
        val: The validation part, likewise; None: split off from `data`.
        test: The test part; None: see `test_fraction`.
        task: What labels mean; None: told from labels and head, and said in a note.
        head: Of the model that will learn or be judged.
        seed: Of the splits.
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything that is split off for the test; None: no test part.

    Returns:
        The data set. Models are fed with the numbers as they are.

    Raises:
        InputError: There are no labels, they do not fit the head or the task, or see `Dataset`.
    """
    DataOptions(
        task=task or DataOptions.task,
        val_fraction=val_fraction,
        test_fraction=test_fraction or DataOptions.test_fraction,
    )
    x, y, weight, name = arrays_of(data, head)
    if y is None:
        raise InputError(
            "data must hold labels here. Received: examples alone. Give (x, y), or a stream of "
            "such pairs."
        )
    meaning = meaning_of(y, head, task)
    train = Split(x, meaning.read(y, "y"), weight)
    count = meaning.names or _count(train.y)
    held, tested = (_part(part, meaning, head) for part in (val, test))
    if tested is None and test_fraction is not None:
        train, tested = split_off(
            train, test_fraction, seed, part="test", name=name, kind=meaning.kind
        )
    if held is None:
        train, held = split_off(
            train, val_fraction, seed, part="validation", name=name, kind=meaning.kind
        )
    return Dataset(
        name,
        train,
        held,
        tested if tested is not None else held.take(np.arange(0)),
        tuple(str(label) for label in range(count)),
        Preprocessing(),
        meaning.notes,
        meaning.kind,
    )


def unlabelled(data: Any, *, head: Head | None = None) -> Unlabelled:
    """Makes examples without labels of arrays or a stream; labels that there are tell the task."""
    x, y, _, name = arrays_of(data, head)
    kind = "" if y is None else meaning_of(y, head, None).kind
    return Unlabelled.of(name, x, kind=kind)


@dataclass(frozen=True)
class Meaning:
    """What labels mean.

    Attributes:
        kind: Of the task.
        names: Number of classes, labels or targets; 0: as many as labels tell.
        one_hot: Rows have one 1, at the class.
        whole: Class indices that are written as floating point.
        notes: How it was told, for reports.
    """

    kind: str
    names: int = 0
    one_hot: bool = False
    whole: bool = False
    notes: tuple[str, ...] = ()

    def read(self, labels: Array, name: str) -> npt.NDArray[Any]:
        """Returns labels as a data set holds them.

        Raises:
            InputError: They are of another kind.
        """
        if self.one_hot:
            if labels.ndim != 2 or not _is_one_hot(labels):
                raise InputError(
                    f"{name} must be rows with one 1 each, as the training labels are. Received: "
                    f"shape {labels.shape}."
                )
            return as_labels(labels.argmax(axis=1), name, self.kind)
        if self.whole and labels.dtype.kind == "f" and _is_whole(labels):
            labels = labels.astype(np.int64)
        return as_labels(labels, name, self.kind)


def meaning_of(y: Array, head: Head | None, task: str | None) -> Meaning:
    """Tells what labels mean.

    Args:
        y: (n,), (n, 1) or (n, columns).
        head: Of the model, where there is one.
        task: What the user says; None: labels and head tell.

    Raises:
        InputError: They disagree.
    """
    column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if y.ndim > 2 or not y.size:
        raise InputError(
            f"y must have shape (n,) or (n, columns), n at least 1. Received: {y.shape}."
        )
    if task is not None:
        return _said(y, head, task, column)
    width, ends = (head.outputs, head.activation) if head is not None else (0, "")
    kind, why = _of_column(y, width, ends) if column else _of_rows(y, ends)
    one_hot = kind == "multiclass" and not column
    whole = has_classes(kind) and column and y.dtype.kind == "f"
    found = "one-hot rows" if one_hot else "whole numbers" if whole else why
    note = f"task {kind}, inferred from the labels ({found})"
    if head is not None:
        note += f" and the model's head ({ends}, {width} outputs)" if width else ""
    notes = (f"{note}; task= overrides it",)
    return Meaning(kind, _names(kind, y, head, column), one_hot, whole, notes)


def _said(y: Array, head: Head | None, task: str, column: bool) -> Meaning:
    """Reads labels as the user says they are meant."""
    one_hot = task == "multiclass" and not column and _is_one_hot(y)
    whole = has_classes(task) and column and y.dtype.kind == "f" and _is_whole(y)
    notes = ("labels are one-hot rows: the class is the position of the 1",) if one_hot else ()
    return Meaning(task, _names(task, y, head, column), one_hot, whole, notes)


def _names(kind: str, y: Array, head: Head | None, column: bool) -> int:
    """Returns the number of classes, labels or targets."""
    if kind == "binary":
        return 2
    if kind == "multiclass":
        # a model knows classes that these examples may lack
        return head.outputs if head is not None else (0 if column else y.shape[1])
    return 1 if column else int(y.shape[1])


def _of_column(y: Array, width: int, ends: str) -> tuple[str, str]:
    """Returns the task of one number an example, and what it shows by."""
    yes_no = bool(np.isin(y, (0, 1)).all())
    if y.dtype.kind == "f":
        if ends == "sigmoid" and width == 1 and yes_no:
            return "binary", "0 and 1"
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
    """Returns the task of several numbers an example."""
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


def _part(data: Any, meaning: Meaning, head: Head | None) -> Split | None:
    """Returns a part that was handed over beside the training part."""
    if data is None:
        return None
    x, y, weight, _ = arrays_of(data, head)
    if y is None:
        raise InputError("val and test must hold labels. Received: examples alone. Give (x, y).")
    return Split(x, meaning.read(y, "y"), weight)


def _count(labels: npt.NDArray[Any]) -> int:
    """Returns the number of classes that indices tell of."""
    count = int(labels.max()) + 1
    if count < 2:
        raise InputError("y must be of at least two classes. Received: one.")
    return count


def _is_one_hot(rows: Array) -> bool:
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all())


def _is_whole(labels: Array) -> bool:
    return bool(np.isfinite(labels).all() and (labels == np.floor(labels)).all())
