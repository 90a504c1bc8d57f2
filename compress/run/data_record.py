"""data.json: what later uses of a run's models need to know of its data."""

from __future__ import annotations

from compress.core.atomic_files import write_json
from compress.data import Dataset
from compress.data.parts import SPLITS
from compress.run.directory import LOG, RunFolder


def write_data_record(folder: RunFolder, data: Dataset) -> None:
    """Stores what later uses of the run's models need to know of the data, and logs its notes."""
    for note in data.notes:
        LOG.info("note: %s", note)
    shapes = {name: list(shape) for name, shape in data.input_shapes.items()}
    write_json(
        folder.data,
        {
            "source": data.name,
            "task": data.kind,
            "input_shape": list(shapes[""]) if "" in shapes else [],
            **({} if "" in shapes else {"input_shapes": shapes}),
            "class_names": list(data.class_names),
            "counts": data.counts(),
            "examples": {part: len(data.split(part)) for part in SPLITS},
            "preprocess": data.preprocess.to_json(),
            "fingerprint": data.fingerprint(),
            "notes": list(data.notes),
        },
    )
