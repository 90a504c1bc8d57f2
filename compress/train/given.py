"""Data as the public functions take them: by name or path, as arrays, as a stream, as a `Dataset`.

What is read by name or path is scaled as the model was trained with; what is handed over as
numbers is fed as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.arrays import taken
from compress.core.errors import InputError, unknown_name
from compress.data import DataOptions, Dataset, Preprocessing, Unlabelled, load_data
from compress.data.adapters import labelled, unlabelled
from compress.data.leaks import check_parts
from compress.data.tasks import CUSTOM, UNLABELLED, Custom
from compress.model.compiled import CompiledOutput, compiled_of, compiled_outputs, less_is_better
from compress.model.heads import answering, check_shapes, head_of, output_of
from compress.model.io import as_model
from compress.model.ports import answers_of, is_index, output_names
from compress.model.rebuild import as_graph
from compress.plan.data import AUTO
from compress.run.origin import origin_of
from compress.train.predict import Predictor, find_scaling

if TYPE_CHECKING:
    import keras

LOOKED_AT = 500
"""Training examples on which it is found what guessing costs."""


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
    """Return the `Dataset` of anything that holds examples and labels.

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
    """Return the data set for a loaded model; see `as_dataset`.

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
        named = DataOptions(str(data), **options)
        if model is None:
            return judged_by(load_data(named, seed=seed), named.metric)
        return load_for_model(path, named, model, seed, compiled or None)
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
        return labelled(data, answers=answering(model), **parts)
    found = labelled(data, task=task, **parts)
    if model is not None and getattr(model, "inputs", None):
        check_shapes(model, found)
    if model is not None:
        found = with_compiled(found, model, compiled or {})
    return judged_by(found, metric)


def _seen(
    model: keras.Model, compiled: Mapping[str, CompiledOutput] | None
) -> tuple[keras.Model, Mapping[str, CompiledOutput]]:
    """Return a model as a graph, and the settings that it was compiled with."""
    try:
        graph = as_graph(model)
    except InputError:  # one that cannot be traced says little of its data
        return model, compiled or {}
    return graph, compiled_outputs(model, graph) if compiled is None else compiled


def as_examples(
    data: Any, *, model: keras.Model, path: Path | None = None, seed: int = 0
) -> Dataset | Unlabelled:
    """Return the examples of anything that holds some; labels are not needed.

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
        return load_for_model(path, DataOptions(str(data)), model, seed)
    examples = unlabelled(data, head=head_of(model))
    if getattr(model, "inputs", None):
        check_shapes(model, examples)
    return examples


def load_for_model(
    path: Path | None,
    options: DataOptions,
    model: keras.Model,
    seed: int = 0,
    compiled: Mapping[str, CompiledOutput] | None = None,
) -> Dataset:
    """Load data with the input scaling that a model was trained with, unless `normalize` names one.

    Args:
        path: The model's file; None: it comes from none. Of one from a run's folder the run
            tells; of another one the answers do, see `find_scaling`.
        options: Name the data, their split and `normalize`.
        model: What lies in the file.
        seed: Of the split.
        compiled: What the model was compiled with; default: what it tells itself, or its file
            where a custom task is asked for.

    Raises:
        InputError: The data cannot be loaded, or the scaling cannot be found.
    """
    data = _load_scaled(path, options, model, seed)
    if compiled is None:
        compiled = compiled_outputs(model)
        if not compiled and path is not None and CUSTOM in options.tasks:
            compiled = compiled_of(path)
    return judged_by(with_compiled(data, model, compiled), options.metric)


def _load_scaled(path: Path | None, options: DataOptions, model: keras.Model, seed: int) -> Dataset:
    bare = options.task == UNLABELLED
    answers = answering(model) if bare else None
    if options.normalize != "auto":
        return load_data(options, seed=seed, answers=answers, head=head_of(model))
    origin = origin_of(path) if path is not None else None
    stored = origin.preprocess if origin is not None else None
    if bare and stored is None:
        raise InputError(
            "normalize must be given where labels do not tell how a model's inputs were scaled. "
            f"Received: {options.normalize}, for examples without labels. Pass --normalize with "
            "what it was trained with."
        )
    data = load_data(options, seed=seed, preprocess=stored, answers=answers, head=head_of(model))
    # a data set of the user's own code comes scaled
    if stored is not None or data.max_value is None:
        return data
    if len(model.inputs) == 1 and is_index(model.inputs[0]):
        note = f"inputs of model '{path or model.name}' are integers: examples are fed as they are"
        return replace(data, preprocess=Preprocessing(), notes=(*data.notes, note))
    found = find_scaling(model, data, f"Model '{path or model.name}'")
    return replace(data, preprocess=found.preprocess, notes=(*data.notes, found.note))


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
    """Refuse arguments that go with arrays and streams only."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise InputError(f"{given[0]} goes with arrays and streams. Received: {given[0]} {what}.")


def with_compiled(
    data: Dataset, model: keras.Model, compiled: Mapping[str, CompiledOutput]
) -> Dataset:
    """Return the data with the loss weights and custom tasks that a model was compiled with.

    What a guess costs is what the model's answers to other examples do.

    Args:
        data: Some of whose outputs may have the kind "custom".
        model: That answers them.
        compiled: What it was compiled with, by the outputs' names.

    Raises:
        InputError: It was not compiled with a loss for one of them.
    """
    data = _weighted(data, compiled)
    kinds = {item.name: item.kind for item in data.outputs} or {"": data.kind}
    custom = [name for name, kind in kinds.items() if kind == Custom.name]
    if not custom:
        return data
    index = np.linspace(0, len(data.train) - 1, min(LOOKED_AT, len(data.train))).astype(np.int64)
    part = data.train.take(index)
    made = Predictor(partial(answers_of, model), data.preprocess, model)(part.x)
    tasks = {}
    for name in custom:
        own = name or output_names(model)[0]
        given = compiled.get(own)
        if given is None or given.loss is None:
            raise InputError(
                f"Output '{own}' must have a loss for a custom task: the model was compiled "
                "without one. Compile it (loss=, metrics=), or give --task."
            )
        labels, scores = (held[name] if name else held for held in (part.y, made))
        shape = tuple(size or scores.shape[place + 1] for place, size in
                      enumerate(output_of(model, name).shape[1:]))  # fmt: skip
        tasks[name] = _custom_task(given, shape, labels, scores)
    return replace(data, compiled=tasks)


def _weighted(data: Dataset, compiled: Mapping[str, CompiledOutput]) -> Dataset:
    """Return the data with the loss weights of several outputs, if `compile` was given some."""
    given = [compiled[item.name].weight for item in data.outputs if item.name in compiled]
    if all(weight is None for weight in given):
        return data
    found = {
        item.name: 1.0 if (weight := compiled[item.name].weight) is None else weight
        for item in data.outputs
    }
    told = ", ".join(f"{name} {weight:g}" for name, weight in found.items())
    note = f"losses are weighted as the model was compiled: {told}"
    return replace(data, loss_weights=tuple(found.values()), notes=(*data.notes, note))


def _custom_task(given: CompiledOutput, shape: tuple[int, ...], labels: Any, scores: Any) -> Custom:
    metrics = tuple((str(metric.name), metric) for metric in given.metrics)
    text = str(getattr(given.loss, "name", None) or getattr(given.loss, "__name__", "loss"))
    main = metrics[0][0] if metrics else ""
    spread = float(scores.reshape(-1, scores.shape[-1]).var(0, dtype=np.float64).mean()) or 1.0
    if main and less_is_better(given.metrics[0]):
        main = f"-{main}"
    task = Custom(shape, given.loss, text, metrics, main, spread=spread)
    order = np.random.default_rng(0).permutation(len(labels))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # of no example its own
    guess = task.error(labels, taken(scores, other))
    if not np.isfinite(guess) or guess <= 0:
        guess = max(1e-12, task.error(labels, scores)) if np.isfinite(guess) else 1.0
    task = replace(task, guess=float(guess))
    return replace(task, level=float(task.quality(labels, taken(scores, other))[task.qualities[0]]))


def judged_by(data: Dataset, metric: str) -> Dataset:
    """Return the data with another selection metric of their task.

    Args:
        data: Any.
        metric: Its name; of a compiled metric "-" before it where less is better.

    Raises:
        InputError: The task has no such quality.
    """
    if not metric:
        return data
    task = data.task
    if isinstance(task, Custom):
        names = [name for name, _ in task.metrics]
        if metric.lstrip("-") not in names:
            raise unknown_name("metric", metric.lstrip("-"), names)
        return replace(data, compiled={"": replace(task, main=metric, level=-np.inf)})
    if metric not in task.qualities:
        raise unknown_name("metric", metric, task.qualities)
    return replace(data, metric=metric)
