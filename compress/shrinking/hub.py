"""The head of a model card, as Hugging Face's hub reads it: what the file is, and how good."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.data import Dataset
    from compress.run.compressed import Artifact

OTHER = "other"
IMAGES, ROWS = 3, 1
"""Axes of an example that is an image, and of one that is a row of a table."""
KINDS = {
    ("multiclass", IMAGES): "image-classification",
    ("binary", IMAGES): "image-classification",
    ("multilabel", IMAGES): "image-classification",
    ("segmentation", IMAGES): "image-segmentation",
    ("masks", IMAGES): "image-segmentation",
    ("multiclass", ROWS): "tabular-classification",
    ("binary", ROWS): "tabular-classification",
    ("regression", ROWS): "tabular-regression",
    ("tagging", ROWS): "token-classification",
}
"""The hub's names of tasks, by ours and by the axes of an example."""


def metadata(file: str, library: str, small: Artifact, data: Dataset) -> dict[str, Any]:
    """Returns what stands between the lines of dashes that a card begins with.

    Args:
        file: The file's name.
        library: As the hub calls it.
        small: The file, as it was judged.
        data: By which.

    Reference:
        https://huggingface.co/docs/hub/model-cards: `model-index` holds results that were
        measured, here by the test part.
    """
    rank = len(data.input_shape) if len(data.input_shapes) == 1 else 0
    task = KINDS.get((data.kind, rank), OTHER)
    results = [
        {"type": name, "value": round(value, 6), "name": f"test {name}"}
        for name, value in small.test.items()
    ]
    return {
        "library_name": library,
        **({"pipeline_tag": task} if task != OTHER else {}),
        "tags": ["paretune", small.format],
        # of the model that this was made of: whoever publishes it fills it in
        "license": "unknown",
        "metrics": list(small.test),
        "model-index": [
            {
                "name": file,
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"type": data.name, "name": data.name, "split": "test"},
                        "metrics": results,
                    }
                ],
            }
        ],
    }


def front_matter(values: dict[str, Any]) -> str:
    """Returns it as YAML: JSON a key, which YAML takes, so that no name can break out of it.

    Example:
        >>> print(front_matter({"tags": ["a: b"], "license": "unknown"}))
        tags: ["a: b"]
        license: "unknown"
    """
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in values.items())
