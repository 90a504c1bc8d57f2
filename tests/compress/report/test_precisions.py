"""Tables of how layers are computed in a file."""

from __future__ import annotations

from typing import Any

from compress.report.columns import build_precision_table
from compress.run.compressed_model import Artifact


def artifact(*layers: dict[str, Any], format: str = "int8-qat") -> Artifact:
    return Artifact(
        "net.x", "net", "dense", format, "net.tflite", "net.float32", 1, 1, 1, 0.0, (), 1, 1,
        {"accuracy": 0.5}, 0.0, 1.0, 1, layers=layers,  # type: ignore[arg-type]
    )  # fmt: skip


def test_losses_have_their_share_of_the_column() -> None:
    table = build_precision_table(
        artifact(
            {"layer": "a", "precision": "int8", "losses": {"alone in int8": 0.03}, "why": ""},
            {
                "layer": "b", "precision": "float16",
                "losses": {"alone in int8": 0.01, "alone in float16": 0.0}, "why": "",
            },
            format="int8-mixed",
        )
    )  # fmt: skip
    assert table["heads"] == ["layer", "precision", "alone in int8", "alone in float16"]
    assert table["rows"] == [
        ["a", "int8", "0.03 (75%)", "-"], ["b", "float16", "0.01 (25%)", "0"],
    ]  # fmt: skip
    assert table["about"].startswith("How far the outputs move")


def test_reasons_have_a_column_where_there_are_any() -> None:
    table = build_precision_table(
        artifact(
            {"layer": "a", "precision": "int8", "losses": {"by its own rounding": 0.5}, "why": ""},
            {"layer": "b", "precision": "float32", "losses": {}, "why": "it is recurrent"},
        )
    )
    assert table["heads"][-1] == "why"
    assert table["rows"] == [
        ["a", "int8", "0.5 (100%)", ""], ["b", "float32", "-", "it is recurrent"],
    ]  # fmt: skip
    assert table["wrapped"] == (3,)
    assert table["about"].startswith("Squared error")
