"""Spaces that are the user's own function."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core.errors import InputError
from compress.data import Dataset
from compress.model.heads import check_head
from search.spaces import PythonSpace
from tests.contracts.space import ask
from tests.search.spaces import own

OWN = "tests.search.spaces.own"


def test_models_are_the_functions(blobs: Dataset) -> None:
    space = PythonSpace(f"{OWN}:build")
    trial = ask(0, space.baseline(blobs))
    check_head(space.build(trial, blobs), blobs)
    assert trial.params == {"depth": 1, "width1": 24}
    assert space.smallest(blobs) is None
    assert space.largest(blobs) is None


@pytest.mark.parametrize(
    ("value", "expected"), [(None, {}), ({"depth": 2}, {"depth": 2}), (lambda data: {}, {})]
)
def test_a_baseline_is_optional(
    value: object, expected: dict[str, int], blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "baseline", value)
    assert PythonSpace(f"{OWN}:build").baseline(blobs) == expected


@pytest.mark.parametrize("value", [[1], lambda data: None, {1: 2}])
def test_other_baselines_are_refused(
    value: object, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "baseline", value)
    with pytest.raises(InputError, match="must have as `baseline` a dictionary .* Received: "):
        PythonSpace(f"{OWN}:build").baseline(blobs)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such:build", r"Space 'no_such:build' must name an importable module \(No module"),
        (f"{OWN}:absent", rf"must name a function of '{OWN}'. Received: 'absent' \(no such name"),
        (f"{OWN}:not_callable", r"Received: 'not_callable' \(int\)"),
        (f"{OWN}:one_argument", r"must take \(trial, data\). Received: a function of \(trial"),
        (":build", "must be package.module:function. Received: ':build'"),
        (f"{OWN}:", "must be package.module:function"),
    ],
)
def test_bad_targets(target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PythonSpace(target)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import missing_thing", r"\(No module named 'missing_thing'\). Run from the folder"),
        ("def build(trial, data) return", r"\(SyntaxError: expected ':'"),
        ("1 / 0", r"\(ZeroDivisionError: division by zero, .*broken_space.py:1\). Make `python"),
    ],
)
def test_errors_of_the_users_file_are_shown(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_space.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        PythonSpace("broken_space:build")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", "must return a keras.Model. Received: int"),
        ("unbuilt", "must return a Functional model.*begins with keras.Input. Received: Seq"),
        ("misfit", r"must fit the data. Model .* must output \(batch, 3\) .* Received: \(None, 7"),
    ],
)
def test_bad_models(function: str, message: str, blobs: Dataset) -> None:
    with pytest.raises(InputError, match=f"Space '{OWN}:{function}' {message}"):
        PythonSpace(f"{OWN}:{function}").build(ask(0), blobs)
