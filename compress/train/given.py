"""Data as the public functions take them: by name or path, as arrays, as a stream, as a `Dataset`.

What is read by name or path is scaled as the model was trained with; what is handed over as
numbers is fed as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.arguments import check_arguments
from compress.core.errors import InputError
from compress.data import DataOptions, Dataset, Unlabelled, load_data
from compress.data.adapters import answered_by, labelled, unlabelled
from compress.data.leaks import check_parts
from compress.data.tasks import UNLABELLED
from compress.model.compiled import CompiledOutput, compiled_outputs
from compress.model.heads import answering, check_shapes, head_of
from compress.model.io import as_model
from compress.model.rebuild import as_graph
from compress.plan.data import AUTO
from compress.train.compiled import judged_by, with_compiled
from compress.train.scaling import load_for_model

if TYPE_CHECKING:
    import keras


@check_arguments()
def as_dataset(
    data: Any,
    *,
    model: keras.Model | str | Path | None = None,
    val: Any = None,
    test: Any = None,
    task: str | None = None,
    label: Iterable[str] | None = None,
    normalize: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    metric: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
    groups: Any = None,
    time: Any = None,
    seed: int = 0,
    testing: bool = False,
) -> Dataset:
    """Makes a `Dataset` of whatever holds examples and labels.

    Arrays and streams are fed as they are; their task is inferred from labels and the model's
    head, and said in the notes. A stream is read once into memory.

    Args:
        data: `(x, y)` or `(x, y, weights)` of arrays, tensors or lists; a `tf.data.Dataset` or a
            `keras.utils.PyDataset` of these, or a generator function; a Hugging Face
            `datasets.Dataset` or `DatasetDict`; a `Dataset`; or what `--data` takes: a name, a
            folder, a file (.npz, .csv, .parquet, .tfrecord), "tfds:NAME",
            "package.module:function".
        model: What the data are for: its head tells what labels mean, and data by name or path
            are scaled as it was trained with.
        val: The validation part beside arrays or a stream; default: split off by `seed`,
            stratified by class.
        test: The test part, likewise; default: none, unless `testing`.
        task: "multiclass", "binary", "multilabel", "regression", "segmentation", "tagging" or
            "masks", where labels do not tell; "reconstruction": the examples are wanted back;
            "unlabelled": what the model answers stands for labels.
        label: Columns of a table, of records or of a Hugging Face data set that are labels.
        normalize: Of data by name or path; see `load_data`.
        groups: What is kept in one part, (n,): the person, recording or site of each example;
            where parts are handed over a mapping by part, {"train": ..., "test": ...}.
        time: What parts are split by, likewise: numbers or dates, of which the latest are tested
            on and those before them validate.
        group_column, time_column: The same for data by path: the column's name.
        val_fraction: Share of the training part that is split off, in (0, 1); default 0.15.
        test_fraction: Share of everything that is split off, in (0, 1); default 0.2.
        metric: The quality that judges; default: the task's first.
        seed: Of the splits, at least 0.
        testing: Whether a test part is needed: split off where it is not there.

    Shapes:
        x: (n, ...), n examples; y: (n,) class indices, names of classes or numbers, (n, classes)
            one-hot rows, (n, labels) of 0 and 1, or (n, targets); of models that answer at every
            position these for each of them; weights: (n,).

    Returns:
        The data set; `dataset.inputs("train")` is what a model is fed.

    Raises:
        InputError: There are no labels, they do not fit the model's head, a stream has no end or
            does not fit into memory, or the source is unknown or damaged.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> data = as_dataset((x, np.arange(100) % 3), val_fraction=0.2)
        >>> len(data.train), len(data.val), data.kind, data.num_classes
        (80, 20, 'multiclass', 3)
    """
    path = Path(model) if isinstance(model, (str, Path)) else None
    given: dict[str, Any] = {
        "label": label,
        "normalize": normalize,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "metric": metric,
        "group_column": group_column,
        "time_column": time_column,
    }
    return dataset_for(
        None if model is None else as_model(model),
        data,
        path=path,
        val=val,
        test=test,
        task=task,
        seed=seed,
        testing=testing,
        groups=groups,
        time=time,
        **{name: value for name, value in given.items() if value is not None},
    )


def dataset_for(
    model: keras.Model | None,
    data: Any,
    *,
    path: Path | None = None,
    val: Any = None,
    test: Any = None,
    task: str | None = None,
    seed: int = 0,
    testing: bool = False,
    compiled: Mapping[str, CompiledOutput] | None = None,
    groups: Any = None,
    time: Any = None,
    **options: Any,
) -> Dataset:
    """Does what `as_dataset` does, for a model that is loaded.

    Args:
        model: What the data are for, or None.
        data, val, test, task, seed, testing, groups, time: See `as_dataset`.
        path: The model's file, where it comes from one.
        compiled: What the model was compiled with; default: what it tells itself.
        **options: Of `DataOptions`, those that were given: `normalize` and fractions.
    """
    task = None if task == AUTO else task
    checked = DataOptions(**options)
    options = {name: getattr(checked, name) for name in options}
    if model is not None:
        model, compiled = _seen(model, compiled)
    if isinstance(data, (str, Path)):
        refuse_marks(groups, time)
        _alone("of data by name or path", val=val, test=test)
        if task is not None:
            options["task"] = task
        return _loaded(DataOptions(str(data), **options), model, path, seed, compiled)
    metric = options.pop("metric", "")
    normalize = options.pop("normalize", "auto")
    if normalize not in ("auto", "none"):
        raise InputError(
            "normalize goes with data by name or path: arrays and streams are fed as they are. "
            f"Received: {normalize}. Scale them before, or save them as an .npz file."
        )
    for name, keyword in (("group_column", "groups"), ("time_column", "time")):
        if options.pop(name, ""):
            raise InputError(
                f"{name} goes with tables and .npz files. Received: {name} of arrays or a stream. "
                f"Give the values themselves: {keyword}=."
            )
    if isinstance(data, Dataset):
        given = {"val": val, "test": test, "task": task, "groups": groups, "time": time}
        _alone("of a Dataset, which has parts of its own", **given, **options)
        if testing:
            data.require_test()
        return judged_by(check_parts(data, ("val", "test")), metric)
    if isinstance(data, Unlabelled):
        raise InputError("data must hold labels here. Received: examples alone.")
    parts = {
        "label": options.pop("label", ()),
        "val": val,
        "test": test,
        "groups": groups,
        "time": time,
        "head": None if model is None else head_of(model, compiled),
        "seed": seed,
        "val_fraction": options.get("val_fraction", DataOptions.val_fraction),
        "test_fraction": options.get(
            "test_fraction", DataOptions.test_fraction if testing else None
        ),
    }
    if model is not None and task == UNLABELLED:
        return answered_by(answering(model), data, **parts)
    found = labelled(data, task=task, **parts)
    if model is not None and getattr(model, "inputs", None):
        check_shapes(model, found)
    if model is not None:
        found = with_compiled(found, model, compiled or {})
    return judged_by(found, metric)


def _seen(
    model: keras.Model, compiled: Mapping[str, CompiledOutput] | None
) -> tuple[keras.Model, Mapping[str, CompiledOutput]]:
    """Returns a model as a graph, and what it was compiled with."""
    try:
        graph = as_graph(model)
    except InputError:  # one that cannot be traced says little of its data
        return model, compiled or {}
    return graph, compiled_outputs(model, graph) if compiled is None else compiled


def as_examples(
    data: Any, *, model: keras.Model, path: Path | None = None, seed: int = 0
) -> Dataset | Unlabelled:
    """Makes examples of whatever holds them; labels are not needed.

    Args:
        data: What `as_dataset` takes, or x alone.
        model: What is fed with them.
        path: Its file, where it comes from one.
        seed: Of the split of data by name or path.

    Raises:
        InputError: See `as_dataset`.
    """
    if isinstance(data, (Dataset, Unlabelled)):
        return data
    if isinstance(data, (str, Path)):
        return _loaded(DataOptions(str(data)), model, path, seed)
    examples = unlabelled(data, head=head_of(model))
    if getattr(model, "inputs", None):
        check_shapes(model, examples)
    return examples


def _loaded(
    options: DataOptions,
    model: keras.Model | None,
    path: Path | None,
    seed: int,
    compiled: Mapping[str, CompiledOutput] | None = None,
) -> Dataset:
    if model is None:
        return judged_by(load_data(options, seed=seed), options.metric)
    return load_for_model(path, options, model, seed, compiled or None)


def refuse_marks(groups: Any, time: Any) -> None:
    """Refuse groups and times beside data by name or path.

    Raises:
        InputError: There are some.
    """
    for name, values, option in (("groups", groups, "group"), ("time", time, "time")):
        if values is not None:
            raise InputError(
                f"{name} goes with arrays and streams. Received: {name} of data by name or path. "
                f"Name the column: {option}_column= (--{option}-column)."
            )


def _alone(what: str, **others: Any) -> None:
    """Refuses what goes with arrays and streams alone."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise InputError(f"{given[0]} goes with arrays and streams. Received: {given[0]} {what}.")
