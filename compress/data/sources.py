"""Data sets loaded by name or path: read, split, checked and scaled."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from compress.core.arguments import check_arguments
from compress.core.errors import InputError, ParetuneError, find_nearest_name
from compress.core.module_loading import describe_error, import_function
from compress.core.summary import OnProgress, ignore_progress
from compress.data import images, keras_datasets
from compress.data.adapters import build_dataset, build_labelled_dataset, predict_labels
from compress.data.dataset import Dataset, PredictFunction
from compress.data.kinds import Kind, ReadRequest, parse_extension
from compress.data.label_inference import Head, Heads, infer_label_format
from compress.data.leakage import check_leakage
from compress.data.parts import RawData, Split, check_split
from compress.data.preprocessing import Preprocessing, fit_preprocessing
from compress.data.splitting import split_missing_parts
from compress.data.tasks import TASKS, UNLABELLED, has_classes, has_positions, needs_labels
from compress.plan import DataOptions
from compress.plan.data import AUTO
from compress.plan.fields import require
from compress.plugins import FILES, FOLDERS, HUBS, SOURCES

_CLASS_READERS = (keras_datasets.load_keras_dataset, keras_datasets.read_digits)
_COLUMN_SOURCES = "tables and .npz files (in Python, with arrays, {}=)"
_OPTION_SOURCES = {
    "resize": "folders of images, TFRecords and tfds:NAME",
    "label": "tables and TFRecords",
    "group_column": _COLUMN_SOURCES.format("groups"),
    "time_column": _COLUMN_SOURCES.format("time"),
}
"""Options that only some kinds of sources support, and these kinds."""


@check_arguments()
def load_data(
    source: str | DataOptions = "digits",
    *,
    label: Iterable[str] = (),
    normalize: str = DataOptions.normalize,
    resize: tuple[int, int] | None = None,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float = DataOptions.test_fraction,
    task: str = DataOptions.task,
    group_column: str = DataOptions.group_column,
    time_column: str = DataOptions.time_column,
    seed: int = 0,
    preprocess: Preprocessing | None = None,
    answers: PredictFunction | None = None,
    head: Head | Heads | None = None,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Load a data set and return its training, validation and test parts.

    Parts that the source lacks are split off, stratified by class if there are classes, and
    determined by `seed` alone: the test part from all examples, the validation part from the rest.

    Args:
        source: "digits"; a name in `keras.datasets` (mnist, fashion_mnist, cifar10, cifar100); a
            folder of IDX files, of class sub-folders with images or of TFRecord files; an .npz,
            .csv, .parquet or .tfrecord file; "tfds:NAME"; or "package.module:function" returning a
            `Dataset`, (x, y), a stream of such pairs or a Hugging Face data set, which are not
            scaled. A `DataOptions` record replaces all options below up to `time_column`.
        label: Label columns of a table, or label features of records; default: the one called
            "label", "y" or "target".
        normalize: "standardize", "unit", "symmetric", "center", "caffe", "torch", "none" (see
            `fit_preprocessing`), or "auto" (= "standardize" here).
        resize: Height and width in pixels that images of a folder or of records are resized to.
        val_fraction: Share of the training part that becomes the validation part, in (0, 1).
        test_fraction: Share of all examples that becomes the test part, in (0, 1).
        task: Kind of task: "multiclass" or "binary"; for files other than images also "multilabel",
            "regression", "segmentation", "tagging" or "masks"; without labels, or to ignore them,
            "reconstruction" (the input is the target) or "unlabelled" (a model's output is the
            target). "auto": inferred from labels and head.
        group_column: Column of a table, or name of arrays of an .npz file, whose equal values are
            kept in one part.
        time_column: Column or arrays of times, which parts are split by: the latest examples are
            the test part.
        seed: Seed of the splits, at least 0.
        preprocess: A stored scaling to use instead of fitting one.
        answers: Function that returns a model's outputs, used as labels of data without labels.
        head: Head of the model that is fed and evaluated, if there is one; it determines the
            interpretation of arrays in a file.
        on_progress: Called with (text, completed share) while images are read.

    Returns:
        The data set; `dataset.inputs("train")` are the model inputs of the training part.

    Raises:
        InputError: The source is unknown, missing, corrupt or inconsistent.
        MissingDependency: A package required to read it is not installed.

    Shapes:
        `dataset.train.x`: (n, ...); `dataset.train.y`: see `compress.data.Split`.

    Example:
        >>> data = load_data("digits", normalize="unit")
        >>> data.input_shape, data.num_classes, len(data.train), len(data.val), len(data.test)
        ((8, 8, 1), 10, 1221, 216, 360)

    Reference:
        docs/howto/data.md.
    """
    options = (
        source
        if isinstance(source, DataOptions)
        else DataOptions(
            source,
            task=task,
            label=label,
            normalize=normalize,
            resize=resize,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            group_column=group_column,
            time_column=time_column,
        )
    )
    kind = check_source(options)
    request = ReadRequest(options, head, on_progress or ignore_progress)
    if options.task == UNLABELLED and answers is None:
        raise InputError(
            "Examples without labels must be for a model that exists: its answers stand for "
            f"labels. Received: task {options.task} and no model."
        )
    if kind is None:
        return _load_function(request, seed, answers)
    raw = kind.load(options.source, request)
    return _finish_dataset(
        raw.without_labels() if request.ignores_labels else raw, request, seed, preprocess, answers
    )


def _finish_dataset(
    raw: RawData,
    request: ReadRequest,
    seed: int,
    preprocess: Preprocessing | None,
    answers: PredictFunction | None,
) -> Dataset:
    """Return a data set from the content of a source.

    Args:
        raw: Content of the source.
        request: Request that the source was read for.
        seed: Seed of the splits.
        preprocess: A stored scaling to use instead of fitting one.
        answers: Function that returns a model's outputs, used as labels of data without labels.

    Raises:
        InputError: See `Dataset`; or the stored scaling does not fit the examples.
    """
    options = request.options
    kind, notes = raw.kind or options.task, raw.notes
    if kind == AUTO:
        label_format = infer_label_format(raw.train.y, request.head, None)
        kind = label_format.kind
        # the default task needs no note
        notes += () if kind == "multiclass" else label_format.notes
    classes = raw.class_names or _number_classes(raw.train, options.source, kind, request.head)
    raw = replace(raw, kind=kind, notes=notes, class_names=classes)
    # checked before splitting, which would fail with a less clear message
    for part, split in (("train", raw.train), ("test", raw.test)):
        if split is not None:
            check_split(split, part, options.source, len(classes), kind, raw.outputs)
    parts = split_missing_parts(
        raw, options.source, val_fraction=options.val_fraction,
        test_fraction=options.test_fraction, seed=seed,
    )  # fmt: skip
    x = parts.train.x
    if preprocess is None:
        mode = "standardize" if options.normalize == "auto" else options.normalize
        preprocess = fit_preprocessing(x, raw.max_value or 1.0, mode)
    elif not isinstance(x, dict) and len(preprocess.mean) not in (1, x.shape[-1]):
        raise InputError(
            f"The stored preprocessing must fit the data: it is for {len(preprocess.mean)} "
            f"channels. Received: '{options.source}' with {x.shape[-1]}."
        )
    if answers is not None and raw.kind == UNLABELLED:
        parts = predict_labels(parts, preprocess, answers)
    return build_dataset(parts, options.source, preprocess, raw)


def _load_function(request: ReadRequest, seed: int, answers: PredictFunction | None) -> Dataset:
    """Return a data set from the result of the user's function, without scaling.

    Args:
        request: Request with the name of the function and the kind of task.
        seed: Seed of the splits.
        answers: Function that returns a model's outputs, used as labels of data without labels.

    Raises:
        InputError: See `_call_function`; or the function returns an unsupported type.
    """
    options = request.options
    for name in ("group_column", "time_column"):
        if getattr(options, name):
            raise InputError(
                f"{name} goes with tables and .npz files. Received: {getattr(options, name)} for "
                f"'{options.source}'. Return a compress.data.Dataset of parts that are split so."
            )
    result = _call_function(options.source)
    if isinstance(result, Dataset):
        return check_leakage(result, ("val", "test"))
    if options.normalize not in ("auto", "none"):
        raise InputError(
            "normalize goes with files and names: what a function returns is fed as it is. "
            f"Received: {options.normalize}. Scale it there."
        )
    try:
        data = build_labelled_dataset(
            result, task=None if options.task == AUTO else options.task, label=options.label,
            head=request.head, answers=answers if options.task == UNLABELLED else None, seed=seed,
            val_fraction=options.val_fraction, test_fraction=options.test_fraction,
        )  # fmt: skip
    except InputError as error:
        raise InputError(
            f"'{options.source}' must return a compress.data.Dataset, (x, y), a stream of such "
            f"pairs or a Hugging Face data set. Received: a {type(result).__name__}. {error}"
        ) from None
    return replace(data, name=options.source)


def check_source(options: DataOptions) -> Kind | None:
    """Return the kind of a source, without reading it.

    Args:
        options: Data options, with the source and the kind of task.

    Returns:
        The kind of source; None: it is the user's own function.

    Raises:
        InputError: No source is named, it does not exist, its kind is unknown, or it does not
            support the task or an option.
        MissingDependency: A package required to read it is not installed.
    """
    source, task = options.source, options.task
    require(
        bool(source), "data", "be named: a data set, a folder, a file or module:function", "none",
        "Give --data (in Python: data, or a plan with data.source).",
    )  # fmt: skip
    kind = _detect_kind(source)
    if kind is None:
        return None
    of_classes = options.is_task_inferred or has_classes(task) or not needs_labels(task)
    if kind.of_classes and not of_classes:
        raise InputError(
            f"A {task} task must come from an .npz file, a table, records or module:function. "
            f"Received: '{source}'."
        )
    for name, allowed_sources in _OPTION_SOURCES.items():
        value = getattr(options, name)
        if value and name not in kind.takes:
            shown = value if isinstance(value, str) else ",".join(map(str, value))
            raise InputError(
                f"{name} goes with {allowed_sources}. Received: {shown} for '{source}'."
            )
    return kind


def _detect_kind(source: str) -> Kind | None:
    """Return the kind of a source; None: it is the user's own function."""
    hub, colon, _ = source.partition(":")
    if colon and hub in HUBS:
        HUBS.require_installed(hub)
        return cast(Kind, HUBS[hub])
    if colon and not Path(source).exists() and "/" not in hub:
        return None
    if source in SOURCES:
        reader = SOURCES[source]
        return Kind(lambda name, _: reader(name), of_classes=reader in _CLASS_READERS)
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"data must be a path that exists, a known name ({', '.join(SOURCES)}), "
            f"{', '.join(f'{name}:NAME' for name in HUBS)} or module:function. "
            f"Received: '{source}'."
            + "".join(f" Did you mean '{name}'?" for name in find_nearest_name(source, SOURCES))
        )
    if path.is_dir():
        kinds: list[Kind] = [FOLDERS[name] for name in FOLDERS]
        return next((kind for kind in kinds if kind.holds(path)), images.KIND)
    if not path.is_file():
        raise InputError(
            f"data must be a file or a folder. Received: '{source}', which is neither (a pipe?)."
        )
    return _detect_file_kind(path)


def _detect_file_kind(path: Path) -> Kind:
    name = parse_extension(path.name)
    if name not in FILES:
        *others, last = (f".{extension}" for extension in FILES)
        raise InputError(
            f"A data file must end in {', '.join(others)} or {last}. Received: '{path}'."
        )
    FILES.require_installed(name)
    return cast(Kind, FILES[name])


def _number_classes(
    train: Split, source: str, kind: str, head: Head | Heads | None
) -> tuple[str, ...]:
    """Return the class names 0 to k-1 for k distinct labels.

    For classes by position, the model may have more classes than the labels.
    """
    if kind == UNLABELLED or (isinstance(train.x, dict) and TASKS[kind].of_inputs):
        count = 0
    elif TASKS[kind].of_inputs:
        count = int(train.x.shape[-1])
    elif has_positions(kind) and isinstance(head, Head):
        count = head.num_outputs
    else:
        count = TASKS[kind].names_of(train.y)
    if count < 2 and (has_classes(kind) or has_positions(kind)):
        raise InputError(f"'{source}' must have at least two classes. Received: {count}.")
    return tuple(str(label) for label in range(count))


def _call_function(target: str) -> Any:
    """Return the result of `module:function()`; its exceptions and SystemExit become InputError."""
    function = import_function(target)
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise InputError(
            f"'{target}' must take no arguments. Received: a function of "
            f"{inspect.signature(function)}."
        ) from None
    except ValueError:
        pass  # some callables have no signature; the call below fails if arguments are missing
    try:
        return function()
    except ParetuneError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"'{target}' must return its result. It raised {describe_error(error)}."
        ) from error
