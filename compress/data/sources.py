"""Data sets by name or path: read, split, checked and scaled."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from compress.core.arguments import check_arguments
from compress.core.errors import InputError, ParetuneError, nearest
from compress.core.interpreter import resolve, told
from compress.data import images, keras_datasets
from compress.data.adapters import answer_parts, labelled, make_dataset
from compress.data.dataset import Answering, Dataset
from compress.data.kinds import Asked, Kind, ending
from compress.data.leaks import check_parts
from compress.data.meaning import Head, Heads, meaning_of
from compress.data.parts import RawData, Split, check_split
from compress.data.preprocessing import Preprocessing, fit_preprocessing
from compress.data.splitting import split_rest
from compress.data.tasks import TASKS, UNLABELLED, has_classes, has_positions, needs_labels
from compress.plan import DataOptions
from compress.plan.data import AUTO
from compress.plugins import FILES, FOLDERS, HUBS, SOURCES

_OF_CLASSES = (keras_datasets.load, keras_datasets.read_digits)
_MARKED = "tables and .npz files (in Python, with arrays, {}=)"
_TAKERS = {
    "resize": "folders of images, TFRecords and tfds:NAME",
    "label": "tables and TFRecords",
    "group_column": _MARKED.format("groups"),
    "time_column": _MARKED.format("time"),
}
"""Options that go with some kinds of sources alone, and with which."""


@check_arguments()
def load_data(
    source: str | DataOptions = "digits",
    *,
    label: Iterable[str] = (),
    normalize: str = DataOptions.normalize,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float = DataOptions.test_fraction,
    task: str = DataOptions.task,
    group_column: str = DataOptions.group_column,
    time_column: str = DataOptions.time_column,
    seed: int = 0,
    preprocess: Preprocessing | None = None,
    answers: Answering | None = None,
    head: Head | Heads | None = None,
) -> Dataset:
    """Load a data set and give it a training, a validation and a test part.

    Parts that the source lacks are split off, stratified by class where there are classes and
    determined by `seed` alone: the test part from everything, the validation part from the rest.

    Args:
        source: "digits"; a name in `keras.datasets` (mnist, fashion_mnist, cifar10,
            cifar100); a folder of IDX files, of class sub-folders with images or of TFRecord
            files; an .npz, .csv, .parquet or .tfrecord file; "tfds:NAME"; or
            "package.module:function" returning a `Dataset`, (x, y), a stream of such pairs or a
            Hugging Face data set, which are fed as they are. Options as one `DataOptions` record
            are taken whole.
        label: Columns of a table, or features of records, that are labels; default: the one
            called "label", "y" or "target".
        normalize: "standardize", "unit", "symmetric", "center", "caffe", "torch", "none" (see
            `fit_preprocessing`), or "auto" (= "standardize" here).
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything, in (0, 1).
        task: What labels mean: "multiclass" or "binary"; of other files than images also
            "multilabel", "regression", "segmentation", "tagging" or "masks". Or there are none, or
            they are not looked at: "reconstruction" (the input is what is wanted), "unlabelled"
            (what a model answers is). "auto": labels and head tell.
        group_column: Column of a table, or name of arrays of an .npz file, whose equal values
            stay in one part.
        time_column: Likewise, of times that parts are split by: the latest are tested on.
        seed: Seed of the splits, at least 0.
        preprocess: A stored scaling to use instead of learning one.
        answers: Of data without labels: what a model answers, which stands for them.
        head: Of the model that is fed and judged, where there is one: says how arrays of a
            file are meant.

    Returns:
        The data set; `dataset.inputs("train")` is what a model is fed.

    Raises:
        InputError: The source is unknown, missing, damaged or inconsistent.

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
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            group_column=group_column,
            time_column=time_column,
        )
    )
    kind, asked = check_source(options), Asked(options, head)
    if options.task == UNLABELLED and answers is None:
        raise InputError(
            "Examples without labels must be for a model that exists: its answers stand for "
            f"labels. Received: task {options.task} and no model."
        )
    if kind is None:
        return _load_function(asked, seed, answers)
    raw = kind.load(options.source, asked)
    return _settled(raw.without_labels() if asked.bare else raw, asked, seed, preprocess, answers)


def _settled(
    raw: RawData,
    asked: Asked,
    seed: int,
    preprocess: Preprocessing | None,
    answers: Answering | None,
) -> Dataset:
    """Return a data set from the content of a source.

    Args:
        raw: What it holds.
        asked: What it was read for.
        seed: Of the parts that are split off.
        preprocess: A stored scaling to use instead of learning one.
        answers: Of data without labels: what a model answers.

    Raises:
        InputError: See `Dataset`; or a stored scaling is for other examples.
    """
    options = asked.options
    kind, notes = raw.kind or options.task, raw.notes
    if kind == AUTO:
        meaning = meaning_of(raw.train.y, asked.head, None)
        kind = meaning.kind
        # that sources of classes are of classes needs no note
        notes += () if kind == "multiclass" else meaning.notes
    classes = raw.class_names or _numbered(raw.train, options.source, kind, asked.head)
    raw = replace(raw, kind=kind, notes=notes, class_names=classes)
    # checked before splitting: a stray label would fail there, and less clearly
    for part, split in (("train", raw.train), ("test", raw.test)):
        if split is not None:
            check_split(split, part, options.source, len(classes), kind, raw.outputs)
    parts = split_rest(
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
        parts = answer_parts(parts, preprocess, answers)
    return make_dataset(parts, options.source, preprocess, raw)


def _load_function(asked: Asked, seed: int, answers: Answering | None) -> Dataset:
    """Return a data set from the result of the user's function, which is fed unscaled.

    Args:
        asked: Names the function, and says what labels mean.
        seed: Of the splits.
        answers: Of data without labels: what a model answers.

    Raises:
        InputError: See `_call`; or the function returns something else.
    """
    options = asked.options
    for name in ("group_column", "time_column"):
        if getattr(options, name):
            raise InputError(
                f"{name} goes with tables and .npz files. Received: {getattr(options, name)} for "
                f"'{options.source}'. Return a compress.data.Dataset of parts that are split so."
            )
    result = _call(options.source)
    if isinstance(result, Dataset):
        return check_parts(result, ("val", "test"))
    if options.normalize not in ("auto", "none"):
        raise InputError(
            "normalize goes with files and names: what a function returns is fed as it is. "
            f"Received: {options.normalize}. Scale it there."
        )
    try:
        data = labelled(
            result, task=None if options.task == AUTO else options.task, label=options.label,
            head=asked.head, answers=answers if options.task == UNLABELLED else None, seed=seed,
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

    Returns:
        The kind of source; None: it is the user's own function.

    Raises:
        InputError: No source is named, it does not exist, is of no known kind, or does not
            have what the task needs.
        MissingDependency: A package that reads it is not installed.
    """
    options.require_source()
    source, task = options.source, options.task
    kind = _kind(source)
    if kind is None:
        return None
    of_classes = options.told or has_classes(task) or not needs_labels(task)
    if kind.of_classes and not of_classes:
        raise InputError(
            f"A {task} task must come from an .npz file, a table, records or module:function. "
            f"Received: '{source}'."
        )
    for name, takers in _TAKERS.items():
        value = getattr(options, name)
        if value and name not in kind.takes:
            shown = value if isinstance(value, str) else ",".join(map(str, value))
            raise InputError(f"{name} goes with {takers}. Received: {shown} for '{source}'.")
    return kind


def _kind(source: str) -> Kind | None:
    """Return the kind of a source; None: it is the user's own function."""
    hub, colon, _ = source.partition(":")
    if colon and hub in HUBS:
        HUBS.require_installed(hub)
        return cast(Kind, HUBS[hub])
    if colon and not Path(source).exists() and "/" not in hub:
        return None
    if source in SOURCES:
        reader = SOURCES[source]
        return Kind(lambda name, _: reader(name), of_classes=reader in _OF_CLASSES)
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"data must be a path that exists, a known name ({', '.join(SOURCES)}), "
            f"{', '.join(f'{name}:NAME' for name in HUBS)} or module:function. "
            f"Received: '{source}'."
            + "".join(f" Did you mean '{name}'?" for name in nearest(source, SOURCES))
        )
    if path.is_dir():
        kinds: list[Kind] = [FOLDERS[name] for name in FOLDERS]
        return next((kind for kind in kinds if kind.holds(path)), images.KIND)
    if not path.is_file():
        raise InputError(
            f"data must be a file or a folder. Received: '{source}', which is neither (a pipe?)."
        )
    return _of_file(path)


def _of_file(path: Path) -> Kind:
    name = ending(path.name)
    if name not in FILES:
        *others, last = (f".{known}" for known in FILES)
        raise InputError(
            f"A data file must end in {', '.join(others)} or {last}. Received: '{path}'."
        )
    FILES.require_installed(name)
    return cast(Kind, FILES[name])


def _numbered(train: Split, source: str, kind: str, head: Head | Heads | None) -> tuple[str, ...]:
    """Name the classes by their indices; k distinct labels must be 0 to k-1.

    Of classes by position a model may know more than there are labels of.
    """
    if kind == UNLABELLED or (isinstance(train.x, dict) and TASKS[kind].of_inputs):
        count = 0
    elif TASKS[kind].of_inputs:
        count = int(train.x.shape[-1])
    elif has_positions(kind) and isinstance(head, Head):
        count = head.outputs
    else:
        count = TASKS[kind].names_of(train.y)
    if count < 2 and (has_classes(kind) or has_positions(kind)):
        raise InputError(f"'{source}' must have at least two classes. Received: {count}.")
    return tuple(str(label) for label in range(count))


def _call(target: str) -> Any:
    function = resolve(target)
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise InputError(
            f"'{target}' must take no arguments. Received: a function of "
            f"{inspect.signature(function)}."
        ) from None
    except ValueError:
        pass  # some callables have no signature to look at; the call will tell
    try:
        return function()
    except ParetuneError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"'{target}' must return its result. It raised {told(error)}.") from error
