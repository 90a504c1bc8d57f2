"""Records of a run's folder: what is of another type than declared is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest

from compress.core.arguments import convert_json
from compress.core.errors import InputError
from compress.report.html import render_html
from compress.run.compressed_model import CompressedModel
from compress.run.records import read_record
from search.report import load_report
from search.study.directory import Candidate, SearchFolder
from tests.compress.report.test_report import folder  # noqa: F401 - a fixture
from tests.fuzz.damage import changed, nodes


class Part(TypedDict):
    name: str
    share: NotRequired[float]


@pytest.mark.parametrize(
    ("value", "hint", "result"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (True, bool, True),
        (None, int | None, None),
        ([1, 2], tuple[float, ...], (1.0, 2.0)),
        ([1, 2], list[int], [1, 2]),
        ({"a": [1]}, dict[str, tuple[int, ...]], {"a": (1,)}),
        ({"a": [1]}, dict[str, Any], {"a": [1]}),
        ({"name": "x", "more": [1]}, Part, {"name": "x", "more": [1]}),
        ({"name": "x", "share": 1}, Part | None, {"name": "x", "share": 1.0}),
    ],
)
def test_what_is_of_its_type(value: Any, hint: Any, result: Any) -> None:
    found = convert_json(value, hint, "x")
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "x must be an integer. Received: True"),
        (1.0, int, "x must be an integer. Received: 1.0"),
        ("1", int, "x must be an integer. Received: '1'"),
        (1 << 63, int, "x must be a number of at most 63 bits. Received: 9223372036854775808"),
        (10**400, float, "x must be a number of at most 63 bits"),
        (float("inf"), float, "x must be a number. Received: inf"),
        (False, float, "x must be a number. Received: False"),
        (None, float, "x must be a number. Received: None"),
        (1, bool, "x must be true or false. Received: 1"),
        (1, str, "x must be a text. Received: 1"),
        ("ab", tuple[str, ...], "x must be a list. Received: 'ab'"),
        ({"a": 1}, list[int], "x must be a list"),
        ([1, "b"], list[int], r"x\[1\] must be an integer. Received: 'b'"),
        ([1], dict[str, int], r"x must be a table. Received: \[1\]"),
        ({"a": {"b": "c"}}, dict[str, dict[str, float]], "x.a.b must be a number. Received: 'c'"),
        ({"share": 1}, Part, "x must have the keys name, share. Received: none called 'name'"),
        ({"name": "x", "share": "y"}, Part, "x.share must be a number. Received: 'y'"),
        ([], Part, "x must be a table"),
    ],
)
def test_what_is_not(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert_json(value, hint, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "1"}, "seed must be an integer"),
        ({"state": "done"}, "state must be one of complete, rejected"),
        ({"macs": -1}, "macs must be at least 0; received: -1"),
        ({"val": {"accuracy": [0.5]}}, "val.accuracy must be a number"),
        ({"val": [0.5]}, "val must be a table"),
        ({"history": [[1]]}, r"history\[0\] must be a table"),
        ({"history": [{"epoch": "one"}]}, r"history\[0\].epoch must be an integer"),
        ({"notes": "one"}, "notes must be a list"),
        ({"colour": 1}, "must have the keys id, state.* Received: an unknown 'colour'"),
        ({"seed": None}, "seed must be an integer"),
    ],
)
def test_candidates(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    record = Candidate("0001", "complete", {}, 1, val={"accuracy": 0.5}).to_json()
    path = tmp_path / "0001.json"
    path.write_text(json.dumps(record))
    assert read_record(path, Candidate).to_json() == record
    path.write_text(json.dumps({**record, **change}))
    with pytest.raises(InputError, match=rf"0001\.json'.*{message}"):
        read_record(path, Candidate)
    del record["id"]
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="must have the keys.* Received: no 'id'"):
        read_record(path, Candidate)


def test_records_of_the_first_release_are_read() -> None:
    """Without the fields that came later."""
    assert (
        Candidate.from_json({"id": "1", "state": "failed", "choices": {}, "seed": 0}).macs is None
    )


ODD: list[Any] = [..., None, True, -1, 0, 10**30, 0.5, "x", "", [], {}, [[[[1]]]], {"a": {"b": []}}]


@pytest.mark.slow
def test_every_value_of_a_folder_may_be_of_another_type(folder: SearchFolder) -> None:  # noqa: F811
    """The report is made, or refused in one line; no value ends in another error."""
    refused = made = 0
    files = [folder.plan_path, folder.data, folder.latency, folder.candidates / "0001.json",
             folder.compressed / "0001.json"]  # fmt: skip
    place = 0
    for file in files:
        whole = file.read_text()
        content = json.loads(whole)
        for path in nodes(content):
            # three of the odd values for each place, all of them for each file
            for odd in (ODD * 2)[place % len(ODD) : place % len(ODD) + 3]:
                file.write_text(json.dumps(changed(content, path, odd)))
                try:
                    report = load_report(folder.path)
                    str(report)
                except InputError:
                    refused += 1
                else:
                    made += 1
            place += 3
        file.write_text(whole)
    assert refused > 300
    assert made > 100


@pytest.mark.slow
def test_an_odd_value_on_the_page(folder: SearchFolder) -> None:  # noqa: F811
    """What the tables do not show the page does: versions, shown commands, scaling, layers."""
    for file, path in (
        (folder.plan_path, ("versions",)),
        (folder.plan_path, ("shown", "replay")),
        (folder.data, ("preprocess",)),
        (folder.data, ("counts", "train")),
        (folder.data, ("class_names",)),
        (folder.compressed / "0001.json", ("weights", "pruned")),
        (folder.compressed / "0001.json", ("weights", "kept", 0)),
    ):
        whole = file.read_text()
        for odd in (..., {}, [], "x"):
            file.write_text(json.dumps(changed(json.loads(whole), path, odd)))
            try:
                report = load_report(folder.path)
                render_html(report)
            except InputError:
                continue
        file.write_text(whole)


def test_a_compression_with_contradictions() -> None:
    record = CompressedModel(
        "m",
        "",
        {"dense": {}, "pruned": {}},
        {"pruned": [], "kept": []},
        0,
        1,
        "c",
        1.0,
        "CPU",
        (),
        (),
        None,
        "m-p80",
    ).to_json()
    assert CompressedModel.from_json(record).compressed_name == "m-p80"
    for change, message in (
        ({"compressed": ""}, "must hold a compressed file"),
        ({"val": {"dense": {}}}, "val must hold 'pruned'; received: dense"),
        ({"artifacts": [{"id": "m.float32"}]}, "must have the keys id, model"),
        (
            {"weights": {"pruned": [{"layer": "a", "size": 0, "zeros": 0}], "kept": []}},
            "layers of at least one weight",
        ),
        (
            {"channels": {"groups": [], "frozen": [], "unknown": [["a"]]}},
            "names, kinds and reasons; received",
        ),
    ):
        with pytest.raises(InputError, match=message):
            CompressedModel.from_json({**record, **change})
