"""LiteRT float32 -> MNN, for its kernels that skip zeros."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from compress.errors import MissingDependency, RunFailed
from compress.files import replacing

# MNN's own script installs a package by pip and sends usage records; the converter alone does not
_CONVERT = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"


def export_mnn(source: Path, path: Path) -> None:
    """Converts a float32 `.tflite` file to `.mnn`, in one atomic step.

    Kernels with enough zeros (MNN's converter decides, by layer) are encoded sparse.

    Args:
        source: A `.tflite` file.
        path: Ends in `.mnn`.

    Raises:
        MissingDependency: MNN is not installed.
        RunFailed: The converter refused the file; the message carries its last line.
    """
    from compress.measure.runtimes.mnn import INSTALL

    if importlib.util.find_spec("MNN") is None:
        raise MissingDependency(INSTALL)
    with replacing(path) as temporary:
        # in a process of its own: its protobuf and TensorFlow's do not live in one
        done = subprocess.run(
            [
                sys.executable, "-c", _CONVERT, "-f", "TFLITE", "--modelFile", str(source),
                "--MNNModel", str(temporary), "--bizCode", "paretune",
                "--detectSparseSpeedUp", "1",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not temporary.stat().st_size:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise RunFailed(
                f"MNN's converter refused '{source.name}': {lines[-1] if lines else 'no reason'}"
            )
