"""Columns of tables and features of records: which are inputs, labels, weights and parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compress.core.errors import InputError
from compress.data.meaning import Head, Heads, several

LABELS = ("label", "y", "target")
"""Names of the label where none is said, the first that there is."""
NUMBER = "numbers"
ARRAY = "lists of numbers"
IMAGE = "images"
NAMES = "names"
DATES = "dates"
OTHER = "other things"
LABEL_KINDS = (NUMBER, ARRAY, NAMES)
"""What labels may be."""
_FED = (NUMBER, ARRAY, IMAGE)
_REMEDIES = {
    NAMES: "Encode them as numbers, or ",
    DATES: "Make numbers of them (days since a day, the month), or ",
    OTHER: "Make numbers or lists of numbers of them, or ",
}
_LISTED = 12
"""Names that an error lists."""


@dataclass(frozen=True)
class Field:
    """What a column or a feature holds.

    Attributes:
        kind: One of the kinds above.
        shown: What errors show of it: a value, or its type.
        classes: Names of the classes that its numbers are indices of.
    """

    kind: str
    shown: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What a source holds.

    Attributes:
        where: As errors call the source.
        fields: By name, in the source's order.
        noun: What one is called: "column" or "feature".
        remedy: How one is left out.
        defaults: Names of the label where none is said.
        weight: Name of the examples' weights; "": there are none.
        split: Name of what says which part a row belongs to; "": nothing does.
    """

    where: str
    fields: Mapping[str, Field]
    noun: str = "column"
    remedy: str = "drop the column"
    defaults: tuple[str, ...] = LABELS
    weight: str = ""
    split: str = ""

    @property
    def begins(self) -> str:
        """What errors call the source where a sentence begins with it."""
        return self.where[:1].upper() + self.where[1:]


@dataclass(frozen=True)
class Roles:
    """What becomes of the fields.

    Attributes:
        inputs: Fields by the model's input ("": the only one); several are columns of a matrix.
        labels: Fields by the model's output ("": the only one); several are columns; {}: labels
            are not looked at.
        weight: Field of the weights; "": none.
        split: Field of the parts; "": none.
        group: Field of what is kept in one part; "": none.
        time: Field of what parts are split by; "": none.
        notes: What a report must say.
    """

    inputs: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[str, ...]]
    weight: str = ""
    split: str = ""
    group: str = ""
    time: str = ""
    notes: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """Every field that is read, once."""
        others = (self.weight, self.split, self.group, self.time)
        groups = (*self.inputs.values(), *self.labels.values(), others)
        return tuple(dict.fromkeys(name for group in groups for name in group if name))


def roles_of(
    layout: Layout,
    label: Iterable[str],
    head: Head | Heads | None,
    *,
    bare: bool,
    group: str = "",
    time: str = "",
) -> Roles:
    """Tells what becomes of a source's fields.

    Labels are those that are named, else those by the names of a model's outputs, else the first
    of `layout.defaults`. Inputs are those by the names of a model's inputs where it has several,
    else the only image, else all others.

    Args:
        layout: What there is.
        label: Names that the user gives.
        head: Of the model that is fed, where there is one.
        bare: Whether labels are not looked at: what would be one is left out.
        group, time: Names of what is kept in one part, and of what parts are split by; "": none.

    Raises:
        InputError: There is no label, a name is not there, or an input is nothing to feed.
    """
    wanted, answers = several(head, "inputs"), several(head, "outputs")
    labels = _labels(layout, tuple(dict.fromkeys(label)), answers, bare)
    weight, split = (
        name if name in layout.fields and name not in (*labels, *wanted) else ""
        for name in (layout.weight, layout.split)
    )
    for option, name in (("group_column", group), ("time_column", time)):
        if name and (name not in layout.fields or name in labels):
            raise InputError(
                f"{option} must name a {layout.noun} of {layout.where} that is no label: "
                f"{_listed(layout.fields)}. Received: '{name}'."
            )
    used = (*labels, weight, split, group, time)
    others = [name for name in layout.fields if name not in used]
    inputs = _by_name(layout, others, wanted) if wanted else {"": _together(layout, others)}
    fed = {name for columns in inputs.values() for name in columns}
    left = [name for name in others if name not in fed]
    facts = {
        f"left out of {layout.where}: {_listed(left)}": left,
        f"{layout.noun} '{weight}' of {layout.where} says how much examples count": (
            weight and not bare
        ),
        f"{layout.noun} '{split}' of {layout.where} says which part is which": split,
        f"no {layout.noun} '{group}' of one value is in two parts": group,
        f"parts are split by {layout.noun} '{time}': the latest are the test part": time,
    }
    notes = tuple(note for note, holds in facts.items() if holds)
    if bare:
        told: dict[str, tuple[str, ...]] = {}
    else:
        told = {name: (name,) for name in labels} if answers else {"": labels}
    return Roles(inputs, told, "" if bare else weight, split, group, time, notes)


def _labels(
    layout: Layout, label: tuple[str, ...], answers: Sequence[str], bare: bool
) -> tuple[str, ...]:
    """Returns the fields that are labels, in the order of a model's outputs."""
    fields, noun = layout.fields, layout.noun
    for name in label:
        if name not in fields:
            raise InputError(
                f"label must name a {noun} of {layout.where}: {_listed(fields)}. "
                f"Received: '{name}'."
            )
    if answers:
        found = label or (tuple(answers) if set(answers) <= set(fields) else ())
        if set(found) == set(answers):
            return tuple(answers)
        if not bare:
            raise InputError(
                f"label must name a {noun} of {layout.where} for each output of the model: "
                f"{', '.join(answers)}. Received: {_listed(found or fields)}."
            )
    found = label or next(((name,) for name in layout.defaults if name in fields), ())
    if not found and not bare:
        *others, last = dict.fromkeys((*LABELS, *layout.defaults))
        raise InputError(
            f"{layout.begins} must have a {noun} that is the label: {', '.join(others)} or {last}, "
            f"or the one that is named. Received: {_listed(fields)}. Give --label NAME (label=); "
            "where there is none, --task unlabelled."
        )
    for name in () if bare else found:
        kind = fields[name].kind
        if kind not in LABEL_KINDS or (len(found) > 1 and kind != NUMBER):
            several = " where there are several" if len(found) > 1 else ", lists of them or names"
            raise InputError(
                f"Labels of {layout.where} must be numbers{several}. Received: "
                f"{_told(name, layout)}."
            )
    return found


def _by_name(
    layout: Layout, others: Sequence[str], wanted: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    for name in wanted:
        if name not in others:
            raise InputError(
                f"{layout.begins} must have a {layout.noun} for each input of the model: "
                f"{', '.join(wanted)}. Received: {_listed(others)}."
            )
        _require_fed(layout, name)
    return {name: (name,) for name in wanted}


def _together(layout: Layout, others: Sequence[str]) -> tuple[str, ...]:
    images = [name for name in others if layout.fields[name].kind == IMAGE]
    if len(images) == 1:
        return (images[0],)
    for name in others:
        _require_fed(layout, name)
    single = [name for name in others if layout.fields[name].kind != NUMBER]
    if not others or (single and len(others) > 1):
        received = _listed(f"{name} ({layout.fields[name].kind})" for name in others)
        raise InputError(
            f"{layout.begins} must hold numbers, or one {layout.noun} of lists or images, beside "
            f"the label, for a model of one input. Received: {received or 'nothing'}. To leave "
            f"one out {layout.remedy}."
        )
    return tuple(others)


def _require_fed(layout: Layout, name: str) -> None:
    kind = layout.fields[name].kind
    if kind not in _FED:
        raise InputError(
            f"Inputs from {layout.where} must be numbers. Received: {_told(name, layout)}. "
            f"{_REMEDIES[kind]}{layout.remedy}."
        )


def _told(name: str, layout: Layout) -> str:
    held = layout.fields[name]
    return f"{layout.noun} '{name}' of {held.kind}" + (f" ({held.shown})" if held.shown else "")


def _listed(names: Iterable[str]) -> str:
    """Returns names with commas; of very many the first."""
    given = list(names)
    more = f", ... ({len(given):,} in all)" if len(given) > _LISTED else ""
    return ", ".join(given[:_LISTED]) + more
