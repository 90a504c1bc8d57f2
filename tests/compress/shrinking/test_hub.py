"""The head of a model card: YAML that the hub reads, whatever names say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from compress.data import Dataset
from compress.shrinking.ship import build_metadata, format_yaml
from tests.compress.report.test_report import artifact

ITEM = artifact("m", "pruned", "int8", 0.9, 10)


def read(text: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(text)


def test_results_are_those_of_the_file(digits: Dataset) -> None:
    made = build_metadata("m.tflite", "litert", ITEM, digits)
    assert read(format_yaml(made)) == made
    assert made["pipeline_tag"] == "image-classification"
    (model,) = made["model-index"]
    (result,) = model["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    assert {item["type"]: item["value"] for item in result["metrics"]} == ITEM.test
    assert made["license"] == "unknown"


def test_names_stay_names(digits: Dataset) -> None:
    data = replace(digits, name="x\n---\nlicense: mit\n# \u2028: {[")
    made = build_metadata("a: b.tflite", "litert", ITEM, data)
    text = format_yaml(made)
    assert read(text) == made
    assert not any(line.startswith(("---", "license: mit")) for line in text.splitlines())


def test_other_tasks_have_no_pipeline(digits: Dataset) -> None:
    rows = replace(
        digits,
        **{
            name: replace(getattr(digits, name), x=getattr(digits, name).x.reshape(-1, 64))
            for name in ("train", "val", "test")
        },
    )
    assert build_metadata("m", "litert", ITEM, rows)["pipeline_tag"] == "tabular-classification"
    odd = replace(
        digits,
        **{
            name: replace(getattr(digits, name), x=getattr(digits, name).x.reshape(-1, 8, 8))
            for name in ("train", "val", "test")
        },
    )
    made = build_metadata("m", "litert", ITEM, odd)
    assert "pipeline_tag" not in made
    assert made["model-index"][0]["results"][0]["task"] == {"type": "other"}
