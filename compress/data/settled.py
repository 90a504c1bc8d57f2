"""From what a source holds to a data set: parts split off, checked and scaled, the task told."""

from __future__ import annotations

from compress.core.errors import InputError
from compress.data._base import Dataset
from compress.data.answers import Answering, answered
from compress.data.examples import check_split
from compress.data.kinds import Asked
from compress.data.leaks import check_parts
from compress.data.meaning import Head, Heads, meaning_of
from compress.data.parts import RawData, Split
from compress.data.preprocessing import Preprocessing, fit_preprocessing
from compress.data.several import answers_of
from compress.data.splitting import note_copies, split_off
from compress.data.tasks import TASKS, UNLABELLED, has_classes, has_positions
from compress.plan.data import AUTO


def settled(
    raw: RawData,
    asked: Asked,
    seed: int,
    preprocess: Preprocessing | None,
    answers: Answering | None,
) -> Dataset:
    """Makes a data set of what a source holds.

    Args:
        raw: What it holds.
        asked: What it was read for.
        seed: Of the parts that are split off.
        preprocess: A stored scaling to use instead of learning one.
        answers: Of data without labels: what a model answers.

    Raises:
        InputError: See `Dataset`; or a stored scaling is for other examples.
    """
    options, head = asked.options, asked.head
    (kind, notes), outputs = _kind(raw, asked), raw.outputs
    classes = raw.class_names or _numbered(raw.train, options.source, kind, head)
    # checked before splitting: a stray label would fail there, and less clearly
    check_split(raw.train, "train", options.source, len(classes), kind, raw.outputs)
    train, test, val = raw.train, raw.test, raw.val
    if test is None or val is None:
        notes = (*notes, *note_copies(train))
    if test is None:
        share = options.test_fraction
        train, test = split_off(
            train, share, seed, part="test", name=options.source, kind=kind, outputs=outputs
        )
    check_split(test, "test", options.source, len(classes), kind, raw.outputs)
    if val is None:
        share = options.val_fraction
        train, val = split_off(
            train, share, seed, part="validation", name=options.source, kind=kind, outputs=outputs
        )
    if preprocess is None:
        mode = "standardize" if options.normalize == "auto" else options.normalize
        preprocess = fit_preprocessing(train.x, raw.max_value, mode)
    elif not isinstance(train.x, dict) and len(preprocess.mean) not in (1, train.x.shape[-1]):
        raise InputError(
            f"The stored preprocessing must fit the data: it is for {len(preprocess.mean)} "
            f"channels. Received: '{options.source}' with {train.x.shape[-1]}."
        )
    if answers is not None and kind == UNLABELLED:
        train, val, test = (answered(part, preprocess, answers) for part in (train, val, test))
        if isinstance(train.y, dict):
            kind, outputs = "several", answers_of(train.y)
            classes = tuple(item.name for item in outputs)
        else:
            classes = tuple(str(column) for column in range(train.y.shape[-1]))
    data = Dataset(
        options.source,
        train,
        val,
        test,
        classes,
        preprocess,
        (*raw.notes, *notes),
        kind,
        raw.max_value,
        outputs,
    )
    handed_over = [part for part in ("val", "test") if getattr(raw, part) is not None]
    return check_parts(data, handed_over)


def _kind(raw: RawData, asked: Asked) -> tuple[str, tuple[str, ...]]:
    """Returns the kind of task, and how it was told where the user does not say."""
    task, head = asked.options.task, asked.head
    if raw.kind or task != AUTO:
        return raw.kind or task, ()
    one = next(iter(head.outputs.values())) if isinstance(head, Heads) else head
    meaning = meaning_of(raw.train.y, one, None)
    # that sources of classes are of classes needs no note
    return meaning.kind, () if meaning.kind == "multiclass" else meaning.notes


def _numbered(train: Split, source: str, kind: str, head: Head | Heads | None) -> tuple[str, ...]:
    """Names the classes by their indices; k distinct labels must be 0 to k-1.

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
