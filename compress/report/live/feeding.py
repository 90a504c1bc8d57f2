"""How a file is fed, as a few lines of Python."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

_LITERT = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter

run = Interpreter({file!r}).get_signature_runner()
{fed}
for name, info in run.get_input_details().items():
    scale, zero = info["quantization"]
    values = np.round(fed[name] / scale) + zero if scale else fed[name]
    least, most = (-128, 127) if scale else (-np.inf, np.inf)
    fed[name] = np.clip(values, least, most).astype(info["dtype"])
answers = run(**fed)  # of an int8 file: (answer - zero) * scale, by run.get_output_details()"""
_ONNX = """\
import onnxruntime

net = onnxruntime.InferenceSession({file!r})
{fed}
answers = net.run(None, fed)"""
_KERAS = """\
import keras

net = keras.saving.load_model({file!r})
{fed}
answers = net(fed, training=False)"""
_ONE = {
    ".tflite": "fed = dict.fromkeys(run.get_input_details(), x)",
    ".onnx": "fed = {item.name: x for item in net.get_inputs()}",
    ".keras": "fed = x",
}
FORMS = {".tflite": _LITERT, ".onnx": _ONNX, ".keras": _KERAS}


def feeding(file: str, stem: str, data: dict[str, Any]) -> str:
    """Returns what feeds a file; empty for kinds that have no short way.

    Args:
        file: Its path, in the run's folder.
        stem: Of its model: `exports/STEM.json` says how inputs are scaled.
        data: data.json: shapes of the inputs.

    Example:
        >>> print(feeding("exports/m.keras", "m", {"input_shape": [8, 8, 1]}))
        # x: float32 of shape (1, 8, 8, 1), scaled as exports/m.json says
        import keras
        <BLANKLINE>
        net = keras.saving.load_model('exports/m.keras')
        fed = x
        answers = net(fed, training=False)
    """
    path = PurePosixPath(file)
    if path.suffix not in FORMS:
        return ""
    shapes = data.get("input_shapes") or {"x": data.get("input_shape", ())}
    names = ["x"] if len(shapes) == 1 else [f"x{place}" for place in range(len(shapes))]
    told = "\n".join(
        f"# {name}: float32 of shape ({', '.join(map(str, (1, *shape)))}), scaled as "
        f"exports/{stem}.json says"
        for name, shape in zip(names, shapes.values(), strict=True)
    )
    fed = _ONE[path.suffix] if len(names) == 1 else _by_name(shapes, names)
    return f"{told}\n{FORMS[path.suffix].format(file=file, fed=fed)}"


def _by_name(shapes: dict[str, Any], names: list[str]) -> str:
    items = ", ".join(f"{own!r}: {name}" for own, name in zip(shapes, names, strict=True))
    return f"fed = {{{items}}}"
