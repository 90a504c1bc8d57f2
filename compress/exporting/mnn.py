"""LiteRT float32 to MNN, for its kernels that skip zeros."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.atomic_files import replacing
from compress.core.interpreter import module_command, module_environment
from compress.core.processes import how_it_ended
from compress.exporting import conversions
from compress.exporting.conversions import ConversionFailed, explained
from compress.exporting.litert import plain_file
from compress.plugins import RUNTIMES

if TYPE_CHECKING:
    from compress.exporting.traced import Convertible, Examples

CONVERTER = "MNN's converter"


def export_mnn(source: Path, path: Path) -> None:
    """Convert a float32 `.tflite` file to `.mnn`, in one atomic step.

    Kernels with enough zeros (MNN's converter decides, by layer) are encoded sparse.

    Args:
        source: A `.tflite` file.
        path: Ends in `.mnn`.

    Raises:
        MissingDependency: MNN is not installed.
        RunFailed: The converter refused the file (the message carries its last line), crashed
            or hung.
    """
    RUNTIMES.require_installed("mnn")
    with replacing(path) as temporary, explained(CONVERTER, "mnn", source.name):
        _convert(source, temporary)


def file_for(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Write the MNN file of a Keras model; see `Runtime.maker`."""
    path = Path(f"{stem}.mnn")
    export_mnn(plain_file(traced), path)
    return path


def _convert(source: Path, path: Path) -> None:
    """Run the converter in a process of its own: its protobuf and TensorFlow's exclude each other.

    Raises:
        ConversionFailed: There is no file.
    """
    given = (
        "-f", "TFLITE", "--modelFile", str(source), "--MNNModel", str(path),
        "--bizCode", "paretune", "--detectSparseSpeedUp", "1",
    )  # fmt: skip
    try:
        done = subprocess.run(
            module_command(__name__, *given), env=module_environment(),
            capture_output=True, text=True, check=False, timeout=conversions.HANG_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise conversions.hung() from None
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode < 0:
        words = f"; its last words: {said[-1]}" if said else ""
        raise ConversionFailed("crashed on", how_it_ended(done.returncode) + words)
    if done.returncode or not path.stat().st_size:
        raise ConversionFailed("refused", said[-1] if said else "no reason given")


def main() -> None:
    """Convert without MNN's own script, which would install a package and send usage records."""
    import _tools  # type: ignore[import-not-found]  # MNN's

    _tools.mnnconvert(["mnnconvert", *sys.argv[1:]])


if __name__ == "__main__":
    main()
