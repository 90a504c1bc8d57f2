"""Panels of a file: what it takes for what, and where it differs from the original."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compress.run.exports import Decisions


def file_panels(decisions: Decisions | None, artifact: str) -> Iterator[dict[str, Any]]:
    """Yields the panels of a file; none where its decisions are not on record.

    Args:
        decisions: Of the model's files.
        artifact: Id of the file.
    """
    if decisions is None or artifact not in decisions.files:
        return
    names, found = decisions.class_names, decisions.files[artifact]
    total = sum(map(sum, found["confusion"]))
    yield {
        "kind": "matrix",
        "title": "What is taken for what",
        "caption": f"Of {total:,} test examples, how many of each class (rows) this file takes for "
        "each class (columns).",
        "corner": "class",
        "rows": list(names),
        "columns": list(names),
        "cells": found["confusion"],
    }
    if found["baseline"] == artifact:
        return
    yield {
        "kind": "examples",
        "title": f"Where it differs from {found['baseline']}",
        "caption": f"{found['differ']:,} of {total:,} test examples are decided otherwise"
        + (
            f"; {len(found['examples'])} of them, first what was lost, then what was won:"
            if found["examples"]
            else "."
        ),
        "items": [
            {
                "picture": item["picture"],
                "text": f"example {item['place']}: {names[item['label']]}; original says "
                f"{names[item['before']]}, this {names[item['after']]}",
            }
            for item in found["examples"]
        ],
    }
