"""How a file is fed, as a few lines of Python."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

_LITERT = """\
from ai_edge_litert.interpreter import Interpreter

net = Interpreter(model_path={file!r})
net.allocate_tensors()
{sets}
net.invoke()
answers = [net.get_tensor(item["index"]) for item in net.get_output_details()]"""
_ONNX = """\
import onnxruntime

net = onnxruntime.InferenceSession({file!r})
names = [item.name for item in net.get_inputs()]
answers = net.run(None, dict(zip(names, {given})))"""
_KERAS = """\
import keras

net = keras.saving.load_model({file!r})
answers = net({given}, training=False)"""


def feeding(file: str, data: dict[str, Any]) -> str:
    """Returns what feeds a file; empty for kinds that have no short way.

    Args:
        file: Its path, in the run's folder.
        data: data.json: shapes of the inputs.

    Example:
        >>> print(feeding("exports/m.keras", {"input_shape": [8, 8, 1]}))
        # x: float32 of shape (1, 8, 8, 1), scaled as exports/m.json says
        import keras
        <BLANKLINE>
        net = keras.saving.load_model('exports/m.keras')
        answers = net(x, training=False)
    """
    path = PurePosixPath(file)
    shapes = data.get("input_shapes") or {"x": data.get("input_shape", ())}
    names = [name if name.isidentifier() else f"x{place}" for place, name in enumerate(shapes)]
    given = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
    form = {".tflite": _LITERT, ".onnx": _ONNX, ".keras": _KERAS}.get(path.suffix)
    if form is None:
        return ""
    sets = "\n".join(
        f'net.set_tensor(net.get_input_details()[{place}]["index"], {name})'
        for place, name in enumerate(names)
    )
    about = path.with_suffix(".json")
    told = "\n".join(
        f"# {name}: float32 of shape ({', '.join(map(str, (1, *shape)))}), scaled as {about} says"
        for name, shape in zip(names, shapes.values(), strict=True)
    )
    listed = f"[{', '.join(names)}]"
    given = listed if path.suffix == ".onnx" else given
    return f"{told}\n{form.format(file=file, sets=sets, given=given)}"
