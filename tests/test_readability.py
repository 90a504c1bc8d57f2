"""What the readability check counts, in a file whose figures are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readability import measure_readability

SOURCE = '''"""Module."""


def told(given):
    """Say what is left."""
    found = given
    return found


def select_best(trials):
    """Return the best trial."""
    best_trial = trials[0]
    return best_trial


def get_rows(rows):
    """Return rows."""
    return rows


class Model:
    """Model."""

    @property
    def judged(self):
        """Metric."""
        self.known = 1
        return "judged by"
'''


def test_what_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(SOURCE)
    counted = measure_readability([path])
    assert counted.functions == 3  # a property is none
    assert counted.other == ["a.py:4 told"]
    assert counted.empty == ["a.py:16 get_rows"]
    assert counted.participles == ["a.py:4 told"]
    # given, found, trials, best_trial, rows, self, known
    assert counted.names == 7
    assert sorted(text.rpartition(" ")[2] for text in counted.vague) == ["found", "given", "known"]
    assert counted.docstrings == 6
    assert counted.riddles == ["a.py:4 Say what is left."]
    assert [text.partition(" ")[2] for text in counted.terms] == ["'what is left'", "'judged by'"]
    ratios = {name: value for name, value, *_ in counted.list_ratios()}
    assert ratios["verb first"] == pytest.approx(2 / 3)
    assert ratios["riddles"] == pytest.approx(1 / 6)
