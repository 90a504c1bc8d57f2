"""Registries and the errors of unknown names."""

from __future__ import annotations

import pytest

from compress.core.errors import InputError
from compress.core.registry import Registry


def test_lookup_and_refusal() -> None:
    colours: Registry[int] = Registry("colour")
    colours.add("red", 1)
    colours.add("blue", 2)
    assert colours["red"] == 1
    assert colours.names() == ("red", "blue")
    with pytest.raises(InputError, match="Unknown colour 'bleu'. Choices: blue, red. Did you mean"):
        colours["bleu"]
    with pytest.raises(ValueError, match="already registered"):
        colours.add("red", 3)
