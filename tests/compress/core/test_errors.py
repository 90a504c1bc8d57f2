"""Messages are one line of printable characters, whatever values they echo."""

from __future__ import annotations

import pytest

from compress.core.errors import (
    MAX_MESSAGE_LENGTH,
    InputError,
    MissingDependency,
    RunFailed,
    build_unknown_name_error,
    to_one_line,
)
from compress.plan.fields import require


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("left\u2028right\u202eback", "left\\u2028right\\u202eback"),
        ("\udcff", "\\udcff"),
        (["x\n"], "['x\\n']"),
        (None, "None"),
    ],
)
def test_one_line(value: object, shown: str) -> None:
    assert to_one_line(value) == shown


def test_long_values_are_cut_in_the_middle() -> None:
    text = to_one_line("a" * 150 + "b" * 1_000_000 + "c" * 60)
    assert text == "a" * 100 + " ... (1,000,210 characters in all) ... " + "c" * 50


def test_numbers_that_python_does_not_write() -> None:
    assert to_one_line(1 << 20_000) == "a number of 20001 bits"


def test_nesting_that_python_does_not_write() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert to_one_line(nested) == "a list, deeply nested"
    while nested:  # or the interpreter recurses to free it
        nested = nested.pop()  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [InputError, MissingDependency, RunFailed])
def test_every_message_is_one_line(kind: type[Exception]) -> None:
    error = kind("name must be short. Received: 'a\nb'. Choose another.")
    assert str(error) == "name must be short. Received: 'a\\nb'. Choose another."
    assert str(kind(str(error))) == str(error)
    message = str(kind("Received: " + "x\n" * 10_000 + ". The remedy."))
    assert len(message) < MAX_MESSAGE_LENGTH + 100
    assert message.startswith("Received: x\\nx")
    assert message.endswith("The remedy.")


def test_require_and_unknown_names_render_values() -> None:
    with pytest.raises(InputError, match=r"^size must be small\. Received: a\\nb\. Try 1\.$"):
        require(False, "size", "be small", "a\nb", "Try 1.")
    assert "'sg\\nd'" in str(build_unknown_name_error("optimizer", "sg\nd", ("sgd", "adam")))
    assert len(str(build_unknown_name_error("optimizer", "x" * 10_000, ("sgd", "adam")))) < 400
