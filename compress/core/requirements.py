"""Optional packages: what needs which, found out without importing any of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from compress.core.errors import MissingDependency

FORMATS = {
    # an exported file is run too, by ONNX Runtime
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "onnx_int8": ("onnx", "tf2onnx", "onnxruntime"),
    "onnx_int8-qat": ("onnx", "tf2onnx", "onnxruntime"),
    "int8-mixed": ("litert_quantizer",),
    "int4-weights": ("litert_quantizer",),
}
"""Packages by export format."""
MAKING_ONNX = ("onnx", "tf2onnx")
"""Packages that make a float32 ONNX file of a Keras model."""
EXTRAS = {
    "MNN": "'paretune[mnn]'", "onnx": "'paretune[onnx]'", "tf2onnx": "'paretune[onnx]'",
    "onnxruntime": "'paretune[onnx]'", "openvino": "'paretune[openvino]'",
    "litert_quantizer": "'paretune[mixed]'",
    "pandas": "'paretune[tables]'", "pyarrow": "'paretune[tables]'",
    "tensorflow_datasets": "'paretune[tfds]'",
    "ray": "'paretune[ray]'", "psycopg": "'paretune[postgresql]'", "pymysql": "'paretune[mysql]'",
    "fsspec": "'paretune[ray]'", "tensorboard": "'paretune[tensorboard]'",
    "mlflow": "'paretune[mlflow]'", "wandb": "'paretune[wandb]'",
}  # fmt: skip
"""What to install, by package."""


def require_packages(packages: Iterable[str], what: str) -> None:
    """Checks that packages are installed.

    Args:
        packages: Names that are imported, of `EXTRAS`.
        what: What needs them, as the user asked for it ("format onnx").

    Raises:
        MissingDependency: One is not; the message ends in the install line.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(
                f"{what} must have the package '{name}'. Received: it is not installed. "
                f"Install it: pip install {EXTRAS[name]}"
            )
