"""Why a converter made no file, in one line that names the model, the format and the layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compress.core.errors import RunFailed
from compress.exporting.conversions import ConversionFailed
from compress.exporting.scopes import UNNAMED, path_of, without_calls
from compress.model.walk import named_layers

if TYPE_CHECKING:
    import keras

SHOWN = 3
LONGEST = 300
# LiteRT: error: loc(callsite(fused["Svd:", "functional_1/my_svd_1/Svd@__inference..."
# tf2onnx: Tensorflow op [functional_1/my_svd_1/Svd: Svd] is not supported
_NODES = (
    re.compile(r'error: loc\((?:callsite\()?fused\["(?P<kind>\w+):", "(?P<node>[^"@]+)'),
    re.compile(r"op \[(?P<node>\S+): (?P<kind>\w+)\] is not supported"),
)
_RULE = re.compile(r"'tfl\.\w+' op [^\n]*")
"""What LiteRT's own operations must obey: said where no operation is unknown."""
_NO_RANGE = re.compile(r"Max and min for dynamic tensors should be recorded.*tensor (\S+)")
"""Of tensors that calibration sees no range of: integers, which nothing quantizes."""
_MLIR = re.compile(r"\s*<?unknown>?:0: error: .*", re.DOTALL)


@contextmanager
def explained(converter: str, kind: str, model: keras.Model | str) -> Iterator[None]:
    """Turns a failed conversion into an error that says what it means.

    Args:
        converter: Who converts, as the user knows it ("LiteRT's converter").
        kind: The format.
        model: What is converted; a text where it is a file.

    Raises:
        RunFailed: In place of `ConversionFailed`.
    """
    try:
        yield
    except ConversionFailed as error:
        name = f"'{model}'" if isinstance(model, str) else f"model '{model.name}'"
        why = error.reason
        if error.verb == "refused":
            why = _refusal(why) if isinstance(model, str) else _refusal(why, model)
        text = f"{converter[0].upper()}{converter[1:]} {error.verb} {name} ({kind}): {why}"
        raise RunFailed(text) from None


def _refusal(text: str, model: keras.Model | None = None) -> str:
    """Returns a converter's reason in words: which layers need what it does not know."""
    found: dict[str, list[str]] = {}
    paths = {path for path, _ in named_layers(model)} if model is not None else set()
    for pattern in _NODES:
        for match in pattern.finditer(text):
            path = path_of(without_calls(match["node"]), paths)
            layer = "an operation" if path == UNNAMED else f"layer '{path}'"
            kinds = found.setdefault(layer, [])
            if match["kind"] not in kinds:
                kinds.append(match["kind"])
    unseen = _NO_RANGE.search(text)
    if unseen is not None and not found:
        return (
            f"calibration gives no range for tensor '{unseen[1]}', and this format quantizes all: "
            "integers such as indices of tokens have none"
        )
    if not found:
        lines = _MLIR.sub("", text).strip().splitlines()
        broken = _RULE.search(text)
        return (lines or [broken[0] if broken else "no reason given"])[0][:LONGEST]
    parts = [f"{layer} needs {', '.join(kinds[:SHOWN])}" for layer, kinds in found.items()]
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return f"{'; '.join(parts[:SHOWN])}{more}, which cannot be converted"
