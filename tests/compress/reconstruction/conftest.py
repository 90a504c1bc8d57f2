"""What the tests of reconstruction share."""

from __future__ import annotations

import pytest

from compress.reconstruction import sampling


@pytest.fixture
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solve without the noise of int8 rounding, as if its steps were infinitely small."""
    monkeypatch.setattr(sampling, "STEPS", float("inf"))
