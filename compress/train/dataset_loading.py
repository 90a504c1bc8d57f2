"""Data sets for the public functions: from a name or path, arrays, a stream, or a `Dataset`.

Data by name or path are scaled as in the training of the model; arrays and streams are used
unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.arrays import take_examples
from compress.core.errors import InputError, build_unknown_name_error
from compress.core.lazy_modules import keras
from compress.core.summary import OnProgress
from compress.data import DataOptions, Dataset, Preprocessing, UnlabelledDataset, load_data
from compress.data.adapters import build_labelled_dataset, build_unlabelled_dataset
from compress.data.leakage import check_leakage
from compress.data.tasks import CUSTOM, UNLABELLED, Custom
from compress.model.compile_config import (
    CompiledOutput,
    is_lower_better,
    load_compiled_model,
    read_compiled_outputs,
)
from compress.model.heads import build_predictor, check_shapes, find_output, infer_head
from compress.model.io import as_model
from compress.model.ports import call_model, is_integer_input, list_output_names
from compress.model.rebuild import as_graph
from compress.plan.data import AUTO
from compress.run.origin import find_origin
from compress.train.predict import Predictor, find_scaling

GUESS_EXAMPLES = 500
"""Maximum number of training examples used to estimate the loss of a guess."""


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
    resize: tuple[int, int] | None = None,
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
    """Return a `Dataset` from any source of examples and labels.

    Arrays and streams are used unchanged. Their task is inferred from the labels and the model's
    head and reported in the notes. A stream is read into memory once.

    Args:
        data: `(x, y)` or `(x, y, weights)` of arrays, tensors or lists; a `tf.data.Dataset` or a
            `keras.utils.PyDataset` of these, or a generator function; a Hugging Face
            `datasets.Dataset` or `DatasetDict`; a `Dataset`; or a value of `--data`: a name, a
            folder, a file (.npz, .csv, .parquet, .tfrecord), "tfds:NAME",
            "package.module:function".
        model: Model for the data: its head helps to infer the task, and data by name or path are
            scaled as in its training.
        val: Validation part for arrays or a stream; default: split off by `seed`, stratified by
            class.
        test: Test part, likewise; default: none, unless `testing`.
        task: "multiclass", "binary", "multilabel", "regression", "segmentation", "tagging" or
            "masks", if the labels are ambiguous; "reconstruction": the inputs are the targets;
            "unlabelled": the model's outputs are used as labels.
        label: Label columns of a table, of records or of a Hugging Face data set.
        normalize, resize: Input scaling and image size of data by name or path; see `load_data`.
        val_fraction: Share of the training part that is split off for validation, in (0, 1);
            default 0.15.
        test_fraction: Share of all examples that is split off for the test, in (0, 1); default 0.2
            where a test part is split off.
        metric: Selection metric; default: the first metric of the task.
        group_column, time_column: Column name of the groups or times in data by path.
        groups: Group of each example, (n,), such as a person, recording or site: a group is never
            split across parts. If parts are passed separately, a mapping by part, {"train": ...,
            "test": ...}.
        time: Times of the examples, likewise, as numbers or dates: the latest are the test part,
            those before them the validation part.
        seed: Seed of the splits, at least 0.
        testing: Whether a test part is needed: it is split off if there is none.

    Shapes:
        x: (n, ...), n examples; y: (n,) class indices, class names or numbers, (n, classes) one-hot
        rows, (n, labels) of 0 and 1, or (n, targets); for models with outputs at every position,
        these for each position; weights: (n,).

    Returns:
        The data set; `dataset.inputs("train")` are the model inputs.

    Raises:
        InputError: There are no labels, they do not fit the model's head, a stream has no end or
            does not fit into memory, or the source is unknown or corrupt.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> data = as_dataset((x, np.arange(100) % 3), val_fraction=0.2)
        >>> len(data.train), len(data.val), data.kind, data.num_classes
        (80, 20, 'multiclass', 3)
    """
    options: dict[str, Any] = {
        "label": label,
        "normalize": normalize,
        "resize": resize,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "metric": metric,
        "group_column": group_column,
        "time_column": time_column,
    }
    return prepare_dataset(
        None if model is None else as_model(model),
        data,
        path=Path(model) if isinstance(model, (str, Path)) else None,
        val=val,
        test=test,
        task=task,
        seed=seed,
        testing=testing,
        groups=groups,
        time=time,
        **{name: value for name, value in options.items() if value is not None},
    )


def prepare_dataset(
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
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Dataset:
    """Return the data set for a loaded model; see `as_dataset`.

    Args:
        model: Model for the data, or None.
        data, val, test, task, seed, testing, groups, time: See `as_dataset`.
        path: Path of the model's file; None: it was not loaded from a file.
        compiled: Compile settings of the model, by output name; default: read from the model.
        on_progress: See `load_data`.
        **options: Fields of `DataOptions` that were set, such as `normalize` and fractions.
    """
    task = None if task == AUTO else task
    checked_options = DataOptions(**options)
    options = {name: getattr(checked_options, name) for name in options}
    if model is not None:
        try:
            graph = as_graph(model)
        except InputError:  # without a graph, only the given compile settings are known
            compiled = compiled or {}
        else:
            compiled = read_compiled_outputs(model, graph) if compiled is None else compiled
            model = graph
    if isinstance(data, (str, Path)):
        refuse_marks(groups, time)
        _refuse_extra("of data by name or path", val=val, test=test)
        if task is not None:
            options["task"] = task
        named = DataOptions(str(data), **options)
        if model is None:
            return with_metric(load_data(named, seed=seed, on_progress=on_progress), named.metric)
        return load_for_model(path, named, model, seed, compiled or None, on_progress)
    metric = options.pop("metric", "")
    normalize = options.pop("normalize", "auto")
    if normalize not in ("auto", "none"):
        raise InputError(
            "normalize goes with data by name or path: arrays and streams are fed as they are. "
            f"Received: {normalize}. Scale them before, or save them as an .npz file."
        )
    if options.pop("resize", None) is not None:
        raise InputError(
            "resize goes with images by path: arrays and streams are fed as they are. "
            f"Received: {checked_options.resize}. Resize them before."
        )
    for name, keyword in (("group_column", "groups"), ("time_column", "time")):
        if options.pop(name, ""):
            raise InputError(
                f"{name} goes with tables and .npz files. Received: {name} of arrays or a stream. "
                f"Give the values themselves: {keyword}=."
            )
    if isinstance(data, Dataset):
        unused = {"val": val, "test": test, "task": task, "groups": groups, "time": time}
        _refuse_extra("of a Dataset, which has parts of its own", **unused, **options)
        if testing:
            data.require_test()
        return with_metric(check_leakage(data, ("val", "test")), metric)
    if isinstance(data, UnlabelledDataset):
        raise InputError("data must hold labels here. Received: examples alone.")
    parts = {
        "label": options.pop("label", ()),
        "val": val,
        "test": test,
        "groups": groups,
        "time": time,
        "head": None if model is None else infer_head(model, compiled),
        "seed": seed,
        "val_fraction": options.get("val_fraction", DataOptions.val_fraction),
        "test_fraction": options.get(
            "test_fraction", DataOptions.test_fraction if testing else None
        ),
    }
    if model is not None and task == UNLABELLED:
        dataset = build_labelled_dataset(data, answers=build_predictor(model), **parts)
        return with_metric(dataset, metric)
    dataset = build_labelled_dataset(data, task=task, **parts)
    if model is not None:
        if getattr(model, "inputs", None):
            check_shapes(model, dataset)
        dataset = with_compiled(dataset, model, compiled or {})
    return with_metric(dataset, metric)


def as_examples(
    data: Any, *, model: keras.Model, path: Path | None = None, seed: int = 0
) -> Dataset | UnlabelledDataset:
    """Return examples; labels are kept only for a `Dataset` and for data by name or path.

    Args:
        data: Data as for `as_dataset`, or x alone. Labels of arrays and streams are not used.
        model: Model for the data.
        path: Path of the model's file; None: it was not loaded from a file.
        seed: Seed of the split of data by name or path.

    Raises:
        InputError: See `as_dataset`.
    """
    if isinstance(data, (Dataset, UnlabelledDataset)):
        return data
    if isinstance(data, (str, Path)):
        return load_for_model(path, DataOptions(str(data)), model, seed)
    examples = build_unlabelled_dataset(data, head=infer_head(model))
    if getattr(model, "inputs", None):
        check_shapes(model, examples)
    return examples


def load_for_model(
    path: Path | None,
    options: DataOptions,
    model: keras.Model,
    seed: int = 0,
    compiled: Mapping[str, CompiledOutput] | None = None,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Load data with the input scaling of the model's training, or the one of `normalize`.

    Args:
        path: Path of the model's file; None: it was not loaded from a file. The scaling of a model
            in a run folder is read from the run; otherwise it is inferred, see `find_scaling`.
        options: Name of the data, their split and `normalize`.
        model: The loaded model.
        seed: Seed of the split.
        compiled: Compile settings of the model, by output name; default: read from the model, or
            from its file for a custom task.
        on_progress: See `load_data`.

    Raises:
        InputError: The data cannot be loaded, or the scaling cannot be inferred.
    """
    data = _load_scaled(path, options, model, seed, on_progress)
    if compiled is None:
        compiled = read_compiled_outputs(model)
        if not compiled and path is not None and CUSTOM in options.task_names:
            compiled = read_compiled_outputs(load_compiled_model(path))
    return with_metric(with_compiled(data, model, compiled), options.metric)


def _load_scaled(
    path: Path | None,
    options: DataOptions,
    model: keras.Model,
    seed: int,
    on_progress: OnProgress | None,
) -> Dataset:
    """Return data scaled as given, as recorded for the model, or as its predictions suggest."""
    is_unlabelled = options.task == UNLABELLED
    load = partial(
        load_data, options, seed=seed, answers=build_predictor(model) if is_unlabelled else None,
        head=infer_head(model), on_progress=on_progress,
    )  # fmt: skip
    if options.normalize != "auto":
        return load()
    origin = find_origin(path) if path is not None else None
    stored = origin.preprocess if origin is not None else None
    if is_unlabelled and stored is None:
        raise InputError(
            "normalize must be given where labels do not tell how a model's inputs were scaled. "
            f"Received: {options.normalize}, for examples without labels. Pass --normalize with "
            "what it was trained with."
        )
    data = load(preprocess=stored)
    # data from the user's own code are already scaled
    if stored is not None or data.max_value is None:
        return data
    if len(model.inputs) == 1 and is_integer_input(model.inputs[0]):
        note = f"inputs of model '{path or model.name}' are integers: examples are fed as they are"
        return replace(data, preprocess=Preprocessing(), notes=(*data.notes, note))
    scaling = find_scaling(model, data, f"Model '{path or model.name}'")
    return replace(data, preprocess=scaling.preprocess, notes=(*data.notes, scaling.note))


def refuse_marks(groups: Any, time: Any) -> None:
    """Raise an error if groups or times are passed with data by name or path.

    Raises:
        InputError: Groups or times are passed.
    """
    for name, values, option in (("groups", groups, "group"), ("time", time, "time")):
        if values is not None:
            raise InputError(
                f"{name} goes with arrays and streams. Received: {name} of data by name or path. "
                f"Name the column: {option}_column= (--{option}-column)."
            )


def _refuse_extra(description: str, **others: Any) -> None:
    """Raise an error for arguments that are only valid with arrays and streams."""
    for name, value in others.items():
        if value is not None:
            raise InputError(
                f"{name} goes with arrays and streams. Received: {name} {description}."
            )


def with_compiled(
    data: Dataset, model: keras.Model, compiled: Mapping[str, CompiledOutput]
) -> Dataset:
    """Return the data with the loss weights and custom tasks of a compiled model.

    The loss of a guess is estimated by assigning the model's outputs to other examples.

    Args:
        data: Data set, possibly with outputs of kind "custom".
        model: Model for the data.
        compiled: Compile settings of the model, by output name.

    Raises:
        InputError: The model was compiled without a loss for a custom output.
    """
    data = _apply_loss_weights(data, compiled)
    kinds = {item.name: item.kind for item in data.outputs} or {"": data.kind}
    custom = [name for name, kind in kinds.items() if kind == Custom.name]
    if not custom:
        return data
    index = np.linspace(0, len(data.train) - 1, min(GUESS_EXAMPLES, len(data.train)))
    part = data.train.take(index.astype(np.int64))
    outputs = Predictor(partial(call_model, model), data.preprocess, model)(part.x)
    tasks = {}
    for name in custom:
        output_name = name or list_output_names(model)[0]
        settings = compiled.get(output_name)
        if settings is None or settings.loss is None:
            raise InputError(
                f"Output '{output_name}' must have a loss for a custom task: the model was "
                "compiled without one. Compile it (loss=, metrics=), or give --task."
            )
        labels, scores = (values[name] if name else values for values in (part.y, outputs))
        shape = tuple(size or scores.shape[axis + 1] for axis, size in
                      enumerate(find_output(model, name).shape[1:]))  # fmt: skip
        tasks[name] = _build_custom_task(settings, shape, labels, scores)
    return replace(data, compiled=tasks)


def _apply_loss_weights(data: Dataset, compiled: Mapping[str, CompiledOutput]) -> Dataset:
    """Return the data with the loss weights passed to `compile`, if any."""
    weights = [compiled[item.name].weight for item in data.outputs if item.name in compiled]
    if all(weight is None for weight in weights):
        return data
    loss_weights = {
        item.name: 1.0 if (weight := compiled[item.name].weight) is None else weight
        for item in data.outputs
    }
    description = ", ".join(f"{name} {weight:g}" for name, weight in loss_weights.items())
    note = f"losses are weighted as the model was compiled: {description}"
    return replace(data, loss_weights=tuple(loss_weights.values()), notes=(*data.notes, note))


def _build_custom_task(
    compiled: CompiledOutput, shape: tuple[int, ...], labels: Any, scores: Any
) -> Custom:
    """Return a compiled loss as a task; outputs shuffled among examples give its chance loss."""
    metrics = tuple((str(metric.name), metric) for metric in compiled.metrics)
    text = str(getattr(compiled.loss, "name", None) or getattr(compiled.loss, "__name__", "loss"))
    main = metrics[0][0] if metrics else ""
    spread = float(scores.reshape(-1, scores.shape[-1]).var(0, dtype=np.float64).mean()) or 1.0
    if main and is_lower_better(compiled.metrics[0]):
        main = f"-{main}"
    task = Custom(shape, compiled.loss, text, metrics, main, spread=spread)
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = np.empty_like(order)
    shuffled[order] = np.roll(order, 1)  # each example gets the outputs of another one
    others = take_examples(scores, shuffled)
    guess = task.error(labels, others)
    if not np.isfinite(guess) or guess <= 0:
        guess = max(1e-12, task.error(labels, scores)) if np.isfinite(guess) else 1.0
    task = replace(task, guess=float(guess))
    return replace(task, level=float(task.quality(labels, others)[task.qualities[0]]))


def with_metric(data: Dataset, metric: str) -> Dataset:
    """Return the data with another selection metric.

    Args:
        data: Data set.
        metric: Name of the metric; a compiled metric for which less is better is prefixed by "-".

    Raises:
        InputError: The task has no such metric.
    """
    if not metric:
        return data
    task = data.task
    if isinstance(task, Custom):
        names = [name for name, _ in task.metrics]
        if metric.lstrip("-") not in names:
            raise build_unknown_name_error("metric", metric.lstrip("-"), names)
        return replace(data, compiled={"": replace(task, main=metric, level=-np.inf)})
    if metric not in task.qualities:
        raise build_unknown_name_error("metric", metric, task.qualities)
    return replace(data, metric=metric)
