"""LiteRT Quantizer (formerly ai-edge-quantizer), in the converter's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.core.atomic_files import read_json, write_bytes, write_json
from compress.exporting.mixed.units import Recipe
from compress.exporting.tflite_editing import with_byte_inputs
from compress.exporting.traced import read_examples


def observe_ranges(source: str, path: str, examples: str, recipe: Recipe) -> None:
    """Writes the smallest and the largest value of every tensor over examples.

    Args:
        source: A float32 `.tflite` file.
        path: The JSON file to write.
        examples: See `compress.exporting.traced.read_examples`.
        recipe: Whose whole numbers need ranges.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer.calibrator import CalibrationMode, Calibrator
    from litert_quantizer.recipe_manager import RecipeManager

    recipes = RecipeManager()
    recipes.load_quantization_recipe(recipe)
    observed = Calibrator(
        source,
        num_threads=1,
        # the other way, by tensors that the interpreter keeps, knows none inside loops
        mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
        # its own is a moving average of each example's ends, which cuts off what few have
        qsv_update_func=_widest,
    )
    signature = str(next(iter(Interpreter(model_path=source).get_signature_list())))
    observed.calibrate({signature: read_examples(examples)}, recipes)
    write_json(
        Path(path),
        {
            name: {end: np.asarray(value).tolist() for end, value in found.items()}
            for name, found in observed.get_model_qsvs().items()
        },
    )


def _widest(held: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns the range of a tensor over the examples so far and the next: "min" and "max"."""
    import numpy as np

    return {
        "min": np.minimum(held["min"], other["min"]),
        "max": np.maximum(held["max"], other["max"]),
    }


def convert_mixed(source: str, path: str, ranges: str | None, recipe: Recipe) -> None:
    """Writes a file whose operations have the precisions of a recipe.

    Args:
        source: A float32 `.tflite` file.
        path: The file to write.
        ranges: The file of `observe_ranges`; None: the recipe needs none.
        recipe: See `recipe_of`.
    """
    import numpy as np
    from litert_quantizer import quantizer

    held = {
        name: {end: np.asarray(value, np.float32) for end, value in found.items()}
        for name, found in (read_json(Path(ranges)) if ranges else {}).items()
    }
    made = quantizer.Quantizer(source, recipe).quantize(held).quantized_model
    write_bytes(Path(path), with_byte_inputs(bytes(made)))
