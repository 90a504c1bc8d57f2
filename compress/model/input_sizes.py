"""Sizes of one example, given for a model's inputs in whatever form: by name, in a list, alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

from compress.core.errors import InputError, one_line
from compress.plan import input_shape as shapes

InputShape: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
"""Sizes of one example: of the only input, of each input in a list, or by the inputs' names."""
Sizes = tuple[int | None, ...]
_FORM = "Give sizes by name, like image=96,96,3,table=12 (in Python a dictionary)."


def sizes_of(what: str, own: Sequence[tuple[str, Sizes]], given: InputShape | None) -> list[Sizes]:
    """Returns the sizes of one example of each input, what is given in place of open ones.

    Args:
        what: Whose inputs they are, for errors: "model 'm'".
        own: Name and sizes of each input without its batch axis; None where one is open.
        given: With or without the batch axis, or a text ("224,224,3"). By name, inputs may be left
            out; where one input alone is open, its sizes may stand alone.

    Returns:
        The sizes in the order of `own`; open ones that nothing was given for stay open.

    Raises:
        InputError: A name or a size does not fit, or sizes are not given for each input.
    """
    if given is None:
        return [sizes for _, sizes in own]
    given = _checked(given)
    if isinstance(given, Mapping):
        return _by_name(what, own, given)
    several = len(given) > 0 and isinstance(given[0], (list, tuple))
    listed: list[Any] = list(given) if several else [given]
    open_places = [place for place, (_, sizes) in enumerate(own) if None in sizes]
    if not several and len(own) > 1 and len(open_places) == 1:
        listed = [sizes for _, sizes in own]
        listed[open_places[0]] = given
    if len(listed) != len(own):
        raise InputError(
            f"input_shape must have one shape for each of the {len(own)} inputs of {what}: "
            f"{described(own)}. Received: {one_line(given)}. {_FORM}"
        )
    return [_fitted(what, *each, len(own) > 1) for each in zip(own, listed, strict=True)]


def _checked(given: Any) -> Any:
    """Return sizes as tuples of whole numbers, alone, in a list or by name.

    Raises:
        InputError: They are something else.
    """
    if isinstance(given, str):
        return shapes.InputShape.parse(given).given
    if isinstance(given, Mapping):
        return {str(name): _whole_sizes(sizes, given) for name, sizes in given.items()}
    if isinstance(given, (list, tuple)) and given and isinstance(given[0], (list, tuple)):
        return [_whole_sizes(sizes, given) for sizes in given]
    return _whole_sizes(given, given)


def _whole_sizes(sizes: Any, given: Any) -> tuple[int | None, ...]:
    if isinstance(sizes, Iterable) and not isinstance(sizes, (str, Mapping)):
        found = tuple(sizes)
        if all(
            size is None or (isinstance(size, Integral) and not isinstance(size, bool))
            for size in found
        ):
            return tuple(None if size is None else int(size) for size in found)
    raise InputError(f"input_shape must be {shapes.LIKE}. Received: {one_line(given)}.")


def _by_name(
    what: str, own: Sequence[tuple[str, Sizes]], given: Mapping[str, Sequence[int]]
) -> list[Sizes]:
    names = [name for name, _ in own]
    unknown = next((str(name) for name in given if name not in names), None)
    if unknown is not None:
        raise InputError(
            f"input_shape must name inputs of {what}: {described(own)}. Received: "
            f"{one_line(unknown)}."
        )
    return [
        _fitted(what, port, given[port[0]], len(own) > 1) if port[0] in given else port[1]
        for port in own
    ]


def _fitted(what: str, own: tuple[str, Sizes], given: Any, several: bool) -> Sizes:
    name, sizes = own
    shape = tuple(given)
    if len(shape) == len(sizes) + 1:
        shape = shape[1:]  # with the batch axis
    fits = len(shape) == len(sizes) and all(
        got is not None and got >= 1 and size in (None, int(got))
        for size, got in zip(sizes, shape, strict=True)
    )
    if not fits:
        which = f"input '{name}' of {what}" if several else what
        raise InputError(
            f"input_shape must agree with {which}, which takes {sizes}. Received: {tuple(given)}."
        )
    return tuple(int(size) for size in shape)


def require_known(what: str, names: Sequence[str], sizes: Sequence[Sizes], purpose: str) -> None:
    """Refuses open sizes.

    Args:
        what: See `sizes_of`.
        names: Of the inputs.
        sizes: From `sizes_of`.
        purpose: What needs them: "to be timed".

    Raises:
        InputError: One is open.
    """
    left = [(name, size) for name, size in zip(names, sizes, strict=True) if None in size]
    if not left:
        return
    if len(names) == 1:
        received, example = str(left[0][1]), "like 224,224,3"
    else:
        received = described(left)
        example = "like " + ",".join(
            f"{name}={','.join(str(size or 96) for size in sizes)}" for name, sizes in left
        )
    subject = f"{what[:1].upper()}{what[1:]}"
    raise InputError(
        f"{subject} must have a known input size {purpose}. Received: {received}. "
        f"Give --input-shape, {example} (in Python input_shape=)."
    )


def described(ports: Sequence[tuple[str, Sizes]]) -> str:
    """Returns "image (None, None, 3), table (12,)"."""
    return ", ".join(f"{name} {sizes}" for name, sizes in ports)
