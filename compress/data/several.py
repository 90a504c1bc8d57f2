"""Data of models with several inputs or outputs: arrays by name, a task for each output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from compress.core.columns import named
from compress.core.errors import InputError
from compress.data.meaning import Head, Heads, Meaning, meaning_of
from compress.data.tasks import CUSTOM, UNLABELLED
from compress.plan.data import AUTO

Array = npt.NDArray[Any]
Read = Callable[[Any, str], Array]
"""(values, name for errors) -> array."""


@dataclass(frozen=True)
class Output:
    """What the labels of one output mean.

    Attributes:
        name: Of the output, as the model calls it.
        kind: Of the task.
        class_names: One name a class, label or target.
    """

    name: str
    kind: str
    class_names: tuple[str, ...]


def by_name(values: Any, names: Sequence[str], what: str, read: Read) -> dict[str, Array]:
    """Returns arrays by name, in the order of the names.

    Args:
        values: A mapping by these names, or a list or tuple in their order.
        names: Of a model's inputs or outputs.
        what: "x" or "y", for the error.
        read: Makes an array of what the user gives.

    Raises:
        InputError: Other names, or another number of arrays.
    """
    if isinstance(values, Mapping):
        if set(values) != set(names):
            raise InputError(
                f"{what} must have the names {', '.join(names)}. Received: "
                f"{', '.join(map(str, values))}."
            )
        return {name: read(values[name], f"{what} '{name}'") for name in names}
    given = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(given) != len(names):
        raise InputError(
            f"{what} must be {len(names)} arrays ({', '.join(names)}). Received: {len(given)}."
        )
    return {name: read(part, f"{what} '{name}'") for name, part in zip(names, given, strict=True)}


def names_in(values: Any, heads: Heads | None, side: str) -> list[str]:
    """Returns the names of several inputs or outputs; []: there is one.

    Args:
        values: What the user gives.
        heads: Of the model, where there is one with several.
        side: "inputs" or "outputs".
    """
    if heads is not None:
        own = list(getattr(heads, side))
        return own if len(own) > 1 else []
    return [str(name) for name in values] if isinstance(values, Mapping) else []


def tasks_of(text: str, names: Sequence[str]) -> dict[str, str | None]:
    """Returns the task that is said of each output; None: labels and head tell.

    Args:
        text: "auto", "custom" (of all), or "box=regression,class=multiclass".
        names: Of the outputs.

    Raises:
        InputError: Another form, or an output that there is none of.
    """
    if text == CUSTOM:  # what the model was compiled with says all
        return dict.fromkeys(names, CUSTOM)
    said: dict[str, str | None] = dict.fromkeys(names)
    for item in text.split(",") if text != AUTO else ():
        name, sign, kind = item.partition("=")
        if not sign or name not in said:
            raise InputError(
                f"task must name an output each, like {names[0]}=regression. Its outputs are "
                f"{', '.join(names)}. Received: '{item}'."
            )
        said[name] = None if kind == AUTO else kind
    return said


def meanings_of(
    y: Mapping[str, Array], heads: Mapping[str, Head | None], task: str
) -> dict[str, Meaning]:
    """Tells what the labels of each output mean.

    Args:
        y: Labels by the outputs' names.
        heads: Of the outputs.
        task: See `tasks_of`.
    """
    said = tasks_of(task, list(y))
    found = {}
    for name, labels in y.items():
        try:
            found[name] = meaning_of(labels, heads.get(name), said[name])
        except InputError as error:
            raise InputError(f"Output '{name}': {error}") from None
    return found


def read_with(meanings: Mapping[str, Meaning], y: Any) -> Any:
    """Returns the labels of each output as data sets hold them."""
    return {name: meanings[name].read(labels, f"y '{name}'") for name, labels in named(y)}


def outputs_of(meanings: Mapping[str, Meaning], count: Callable[[str], int]) -> tuple[Output, ...]:
    """Returns what outputs are of.

    Args:
        meanings: By the outputs' names.
        count: Number of names of an output whose meaning does not say it.
    """
    found = []
    for name, meaning in meanings.items():
        names = meaning.classes or tuple(map(str, range(meaning.names or count(name))))
        found.append(Output(name, meaning.kind, names))
    return tuple(found)


def answers_of(made: Mapping[str, Array]) -> tuple[Output, ...]:
    """Returns what outputs are of where a model's answers stand for labels."""
    return tuple(
        Output(name, UNLABELLED, tuple(map(str, range(values.shape[-1]))))
        for name, values in made.items()
    )


def notes_of(meanings: Mapping[str, Meaning]) -> tuple[str, ...]:
    """Returns what a report must say of how labels were read."""
    return tuple(
        f"output '{name}': {note}" for name, meaning in meanings.items() for note in meaning.notes
    )
