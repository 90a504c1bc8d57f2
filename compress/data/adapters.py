"""Data sets from arrays, tensors, streams and Hugging Face data sets, without scaling.

The labels are interpreted to match the model's head. Nothing is scaled here: data passed in Python
are fed to the model as they are. Only data read by name or path are scaled
(`compress.data.load_data`).
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from compress.core.arrays import count_examples, is_mapped, list_named_arrays
from compress.core.errors import InputError, to_one_line
from compress.data.dataset import Dataset, PredictFunction, UnlabelledDataset
from compress.data.hugging_face import (
    SOURCE_NAME,
    describe_labels,
    is_hugging_face,
    read_hugging_face,
    select_parts,
)
from compress.data.kinds import read_parts
from compress.data.label_inference import (
    Head,
    Heads,
    LabelFormat,
    build_class_names,
    infer_label_format,
    list_port_names,
    read_by_name,
)
from compress.data.leakage import check_leakage
from compress.data.parts import (
    SPLITS,
    Array,
    Output,
    RawData,
    Split,
    as_float32,
    split_groups_and_times,
)
from compress.data.preprocessing import Preprocessing
from compress.data.splitting import split_missing_parts
from compress.data.streams import detect_stream_type, is_repeatable, is_stream, read_stream
from compress.data.tasks import TASKS, UNLABELLED, has_classes
from compress.plan import DataOptions
from compress.plan.data import AUTO

LARGEST_EXACT_INT = 2**24
"""Largest n such that float32, the input type of models, represents all integers up to n."""
ARRAYS_NAME = "arrays"
"""Name of data sets that have no name of their own."""


def build_labelled_dataset(
    data: Any,
    *,
    val: Any = None,
    test: Any = None,
    task: str | None = None,
    label: Sequence[str] = (),
    head: Head | Heads | None = None,
    answers: PredictFunction | None = None,
    seed: int = 0,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float | None = None,
    groups: Any = None,
    time: Any = None,
) -> Dataset:
    """Return a data set built from arrays, a stream or a Hugging Face data set.

    Args:
        data: Examples and labels, in any form that `read_arrays` accepts.
        val: Validation part, in the same forms; None: split off from `data`.
        test: Test part, in the same forms; None: see `test_fraction`.
        task: Kind of task; None: inferred from the labels and the head, and recorded in a note.
        label: Label columns of a Hugging Face data set; (): see `compress.data.hugging_face`.
        head: Head of the model that is trained or evaluated. For models with several outputs, the
            labels are mappings by output name, and `task` may be "name=kind,name=kind".
        answers: Function that returns a model's outputs, which are used as labels; labels in the
            data are ignored then.
        seed: Seed of the splits.
        val_fraction: Share of the training part that becomes the validation part, in (0, 1).
        test_fraction: Share of all examples that becomes the test part; None: no test part.
        groups: Group of each example, (n,), or such arrays by part; a group is kept in one part.
            See `add_groups_and_times`.
        time: Time of each example, (n,), or such arrays by part; the parts are split by time.

    Returns:
        The data set, whose values are fed to models unchanged.

    Raises:
        InputError: There are no labels, the labels do not fit the head or the task, or see
            `Dataset`.
    """
    kind = AUTO if task is None or "=" in task else task
    DataOptions(
        task=kind,
        val_fraction=val_fraction,
        test_fraction=test_fraction or DataOptions.test_fraction,
    )
    data, val, test = select_parts(data, val, test)
    ignore_labels = answers is not None or (kind != AUTO and TASKS[kind].of_inputs)
    groups_and_times = split_groups_and_times(groups, time)
    splits = {
        "train": _build_split("train", data, groups_and_times["train"], label, head, ignore_labels)
    }
    for part, part_data in (("val", val), ("test", test)):
        if isinstance(part_data, numbers.Number):
            raise InputError(
                "val and test must be (x, y), a stream or a Dataset. Received: "
                f"{to_one_line(part_data)}. "
                "A share to hold out is val_fraction= or test_fraction=."
            )
        if part_data is not None:
            # other parts may be arrays, even if `data` has columns
            part_label = label if is_hugging_face(part_data) else ()
            splits[part] = _build_split(
                part, part_data, groups_and_times[part], part_label, head, ignore_labels
            )
    train, name = splits["train"], infer_name(data)
    if ignore_labels:
        raw = read_parts(splits, LabelFormat(task or UNLABELLED), name, lambda x, _: x)
    else:
        if isinstance(train.y, dict) and not isinstance(head, Heads):
            raise InputError(
                "y may have names where a model has outputs of these names. Received: "
                f"{', '.join(train.y)}, and "
                f"{'no model' if head is None else 'a model of one output'}."
            )
        label_format = infer_label_format(train.y, head, task)
        classes, notes = describe_labels(data, label, head)
        raw = read_parts(splits, label_format, name, lambda x, _: x, notes=notes)
        notes = (*raw.notes, *note_stream_changes(data, train.x, head))
        raw = replace(raw, notes=notes, class_names=_select_class_names(raw, label_format, classes))
    if answers is not None:
        raw = predict_labels(raw, Preprocessing(), answers)
    elif ignore_labels:
        if isinstance(train.x, dict):
            raise InputError(f"A {kind} task must be of one input. Received: {', '.join(train.x)}.")
        raw = replace(raw, class_names=_list_index_names(train.x.shape[-1]))
    parts = split_missing_parts(
        raw, name, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed
    )
    return build_dataset(replace(parts, max_value=None), name, Preprocessing(), raw)


def predict_labels(raw: RawData, preprocess: Preprocessing, answers: PredictFunction) -> RawData:
    """Return data with a model's outputs as labels.

    Args:
        raw: The data; existing labels are ignored.
        preprocess: Map from raw examples to model inputs.
        answers: Function that returns the model's outputs.
    """
    predicted: dict[str, Any] = {
        part: replace(split, y=answers(split.x, preprocess))
        for part in SPLITS
        if (split := getattr(raw, part)) is not None
    }
    y = predicted["train"].y
    if not isinstance(y, dict):
        return replace(
            raw, **predicted, kind=UNLABELLED, class_names=_list_index_names(y.shape[-1])
        )
    outputs = tuple(
        Output(name, UNLABELLED, _list_index_names(values.shape[-1])) for name, values in y.items()
    )
    return replace(raw, **predicted, kind="several", class_names=tuple(y), outputs=outputs)


def build_dataset(raw: RawData, name: str, preprocess: Preprocessing, provided: RawData) -> Dataset:
    """Return a data set of three parts, checked for data leakage.

    Args:
        raw: The parts; the test part is None where nothing is tested.
        name: Name of the data.
        preprocess: Map from raw examples to model inputs.
        provided: The data before splitting, which show the parts that the caller provided.

    Raises:
        InputError: See `Dataset` and `check_leakage`.
    """
    assert raw.val is not None, "it was split off"
    assert raw.class_names is not None, "whoever reads labels names them"
    test = raw.test if raw.test is not None else raw.val.take(np.arange(0))
    data = Dataset(
        name, raw.train, raw.val, test, raw.class_names, preprocess, raw.notes, raw.kind,
        raw.max_value, raw.outputs,
    )  # fmt: skip
    return check_leakage(
        data, [part for part in ("val", "test") if getattr(provided, part) is not None]
    )


def build_unlabelled_dataset(data: Any, *, head: Head | Heads | None = None) -> UnlabelledDataset:
    """Return the examples of arrays or a stream without labels; labels only determine the task.

    Args:
        data: See `read_arrays`; of a `DatasetDict` the training part.
        head: See `read_arrays`.

    Raises:
        InputError: See `read_arrays` and `UnlabelledDataset`.
    """
    x, y, _, name = read_arrays(select_parts(data, None, None)[0], head)
    kind = "" if y is None or isinstance(y, dict) else infer_label_format(y, head, None).kind
    return UnlabelledDataset.from_arrays(name, x, kind=kind)


def read_arrays(
    data: Any,
    head: Head | Heads | None = None,
    *,
    label: Sequence[str] = (),
    require_labels: bool = False,
) -> tuple[Any, Any, Any, str]:
    """Return examples, labels and weights as arrays, and the name of the data.

    Args:
        data: `x`; `(x, y)`; `(x, y, weights)`; a `tf.data.Dataset` or `keras.utils.PyDataset` of
            such tuples; or a `datasets.Dataset`. Arrays, tensors of any framework, data frames and
            lists of numbers are accepted; for models with several inputs or outputs, dictionaries
            by name or lists in the model's order.
        head: Head of the model that is fed; its input shape distinguishes batches from examples.
        label: Label columns of a `datasets.Dataset`.
        require_labels: Whether a `datasets.Dataset` must have labels.

    Returns:
        x (n, ...), y (n, ...) or None, weights (n,) or None, and a name for messages. Several
        inputs or outputs are dictionaries by name.

    Raises:
        InputError: Names do not match the model, values are not numbers, lengths differ, a stream
            does not end, or the data do not fit into memory.
    """
    name = infer_name(data)
    if is_hugging_face(data):
        data = read_hugging_face(data, label, head, require_labels=require_labels)
    elif label:
        raise InputError(
            "label goes with tables, records and Hugging Face data sets. Received: "
            f"{', '.join(label)}, for {name}."
        )
    elif is_stream(data):
        data = read_stream(data, None if head is None else head.inputs)
        if isinstance(head, Heads):  # the model names the arrays of a list
            data = tuple(_restore_list(part) for part in data)
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise InputError(
            f"data must be x, (x, y) or (x, y, weights). Received: a tuple of {len(parts)}."
        )
    x, y, weight = (*parts, None, None)[:3]
    output_names, input_names = (
        _list_array_names(y, head, "outputs"),
        _list_array_names(x, head, "inputs"),
    )
    labels: Any = None
    if y is not None:
        labels = (
            read_by_name(y, output_names, "y", _read_labels) if output_names else _read_labels(y)
        )
    if input_names:
        examples: Any = read_by_name(x, input_names, "x", _read_input)
    else:
        single_head = None if isinstance(head, Heads) else head
        examples = _read_single_input(
            x, None if labels is None else count_examples(labels), single_head
        )
    weights = None if weight is None else as_array(weight, "weights")
    others = [] if labels is None else list_named_arrays(labels, "y")
    others += [] if weights is None else [("weights", weights)]
    for array_name, other in (*list_named_arrays(examples, "x"), *others):
        if len(other) != count_examples(examples):
            raise InputError(
                f"x and {array_name} must have equal lengths. Received: {count_examples(examples)} "
                f"and {len(other)}."
            )
    return examples, labels, weights, name


def _list_array_names(values: Any, head: Head | Heads | None, side: str) -> list[str]:
    """Return the names of several inputs or outputs, taken from the model if possible."""
    if isinstance(head, Heads):
        return list_port_names(head, side)
    return [str(name) for name in values] if isinstance(values, Mapping) else []


def _restore_list(part: Any) -> Any:
    """Return a list if a stream yielded lists; arrays by name are returned unchanged."""
    is_list = isinstance(part, dict) and list(part) == [str(index) for index in range(len(part))]
    return list(part.values()) if is_list else part


def note_stream_changes(data: Any, x: Any, head: Head | Heads | None) -> tuple[str, ...]:
    """Return a note for reports if a stream differs from pass to pass.

    Args:
        data: The data as the caller provided them.
        x: The examples read from the stream.
        head: See `read_arrays`.
    """
    if not is_stream(data) or is_repeatable(data, None if head is None else head.inputs, x):
        return ()
    return (
        f"a second pass over the {detect_stream_type(data)} stream gives other numbers (it is "
        "shuffled, or changed at random): the examples of the first pass are used; augment= "
        "changes images anew each time",
    )


def is_unlabelled(data: Any) -> bool:
    """Return whether data are known to be examples without labels; False for streams."""
    return not (isinstance(data, (tuple, Dataset)) or is_hugging_face(data) or is_stream(data))


def infer_name(data: Any) -> str:
    """Return the name of data for messages and records."""
    if isinstance(data, Dataset):
        return data.name
    return SOURCE_NAME if is_hugging_face(data) else detect_stream_type(data) or ARRAYS_NAME


def as_array(value: Any, name: str) -> Array:
    """Return numbers as a NumPy array whose first axis is the examples; mapped arrays stay mapped.

    Args:
        value: An array, a tensor, a column or a list, (n, ...).
        name: Name of the values, for errors.

    Raises:
        InputError: The values are names, objects, rows of unequal lengths or a single number.
    """
    try:
        # keep memory-mapped arrays mapped
        array = value if is_mapped(value) else np.asarray(value)
        if array.dtype == object and hasattr(value, "to_numpy"):
            # a data frame or column with mixed number types or extension types
            array = np.asarray(array.tolist())
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of numbers ({error}).") from None
    if array.dtype.name == "bfloat16":  # not a NumPy type
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub" or not array.ndim:
        kind = type(value).__name__ if array.dtype == object else f"type {array.dtype}"
        raise InputError(
            f"{name} must be numbers with an axis of examples. Received: {kind}, shape "
            f"{array.shape}."
        )
    return array


def _build_split(
    part: str, data: Any, groups_and_times: dict[str, Any], label: Sequence[str],
    head: Head | Heads | None, ignore_labels: bool,
) -> Split:  # fmt: skip
    """Return the arrays of one part; only its examples if labels are ignored."""
    x, y, weight, _ = read_arrays(data, head, label=label, require_labels=not ignore_labels)
    if ignore_labels:
        return Split(x, None, **groups_and_times)
    if y is None and part != "train":
        raise InputError(
            f"{part} must hold labels, as the training part does. Received: examples alone. Give "
            f"{part}=(x, y)."
        )
    if y is None:
        raise InputError(
            "data must hold labels here. Received: examples alone. Give (x, y), or a stream of "
            "such pairs; to shrink a model without labels give task='unlabelled' "
            "(or 'reconstruction', of an autoencoder)."
        )
    return Split(x, y, weight, **groups_and_times)


def _select_class_names(
    raw: RawData, label_format: LabelFormat, source_names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the class names, taken from the data set if they fit the labels."""
    if raw.outputs:
        return tuple(item.name for item in raw.outputs)
    fits = has_classes(label_format.kind) and label_format.num_classes in (0, len(source_names))
    if source_names and fits and not label_format.class_names:
        return source_names
    return build_class_names(label_format, raw.train.y)


def _list_index_names(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _read_labels(y: Any, name: str = "y") -> Array:
    """Return labels as an array of numbers or class names."""
    if not isinstance(y, dict):
        with suppress(TypeError, ValueError):
            array = y if is_mapped(y) else np.asarray(y)
            if array.dtype == object and all(isinstance(item, str) for item in array.flat):
                array = array.astype(str)
            if array.dtype.kind in "US" and array.ndim:
                return array
    return as_array(y, name)


def _read_single_input(x: Any, count: int | None, head: Head | None) -> Array:
    """Return the examples of one input; reject a list of arrays for several inputs."""
    if isinstance(x, (list, tuple)) and x and all(hasattr(part, "shape") for part in x):
        array_shape = tuple(x[0].shape)
        is_array_per_input = len(array_shape) > 1 and (
            len(x) != count if count is not None else head is not None and len(array_shape) > len(
                head.input_shape
            )
        )  # fmt: skip
        if is_array_per_input:
            raise InputError(
                "x must be one array for a model of one input; without a model several need names: "
                f"give a dictionary. Received: a list of {len(x)} arrays."
            )
    return _read_input(x, "x")


def _read_input(x: Any, name: str) -> Array:
    """Return x as an array (n, ...), floats as float32; refuse vectors and huge integers."""
    array = as_array(x, name)
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise InputError(
            f"{name} must have shape (n, ...), with one number an example at least. Received: "
            f"{array.shape}. Of one number an example give x[:, None]."
        )
    if array.dtype.kind in "iu" and array.dtype.itemsize > 2 and array.size:
        extreme = max(abs(int(array.min())), abs(int(array.max())))
        if extreme > LARGEST_EXACT_INT:
            raise InputError(
                f"Integers of {name} must be within {LARGEST_EXACT_INT:,}: models are fed "
                f"float32. Received: {extreme:,}."
            )
    if array.dtype.kind == "f" and array.dtype != np.float32:
        return as_float32(array)
    return array
