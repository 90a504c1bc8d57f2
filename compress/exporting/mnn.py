"""LiteRT float32 to MNN, whose sparse kernels skip zeros."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from compress.core.atomic_files import replace_file
from compress.core.module_loading import build_module_command, build_module_environment
from compress.core.processes import describe_exit
from compress.exporting import conversions
from compress.exporting.conversions import ConversionFailed, explain_failures
from compress.exporting.litert import ensure_float32_file
from compress.exporting.tracing import Convertible, Examples
from compress.plugins import RUNTIMES

CONVERTER = "MNN's converter"


def export_mnn(source: Path, path: Path) -> None:
    """Convert a float32 `.tflite` file to `.mnn`, in one atomic step.

    MNN's converter stores kernels with enough zeros as sparse kernels, decided per layer.

    Args:
        source: A `.tflite` file.
        path: Path of the MNN file, ending in `.mnn`.

    Raises:
        MissingDependency: MNN is not installed.
        RunFailed: The converter refused the file (the message has its last line), crashed or hung.
    """
    RUNTIMES.require_installed("mnn")
    with replace_file(path) as temporary, explain_failures(CONVERTER, "mnn", source.name):
        _convert(source, temporary)


def write_for_runtime(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Write the MNN file of a traced model; see `Runtime.maker`.

    Args:
        traced: The model.
        kind: Not used: MNN files are float32.
        stem: Path of the file without its suffix.
        inputs: Not used.
    """
    path = Path(f"{stem}.mnn")
    export_mnn(ensure_float32_file(traced), path)
    return path


def _convert(source: Path, path: Path) -> None:
    """Run the converter in its own process: MNN and TensorFlow need different protobuf versions.

    Raises:
        ConversionFailed: The converter wrote no file.
    """
    arguments = (
        "-f", "TFLITE", "--modelFile", str(source), "--MNNModel", str(path),
        "--bizCode", "paretune", "--detectSparseSpeedUp", "1",
    )  # fmt: skip
    try:
        process = subprocess.run(
            build_module_command(__name__, *arguments), env=build_module_environment(),
            capture_output=True, text=True, check=False, timeout=conversions.HANG_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise conversions.build_timeout_error() from None
    output_lines = [
        line.strip() for line in (process.stdout + process.stderr).splitlines() if line.strip()
    ]
    if process.returncode < 0:
        last_words = f"; its last words: {output_lines[-1]}" if output_lines else ""
        raise ConversionFailed("crashed on", describe_exit(process.returncode) + last_words)
    if process.returncode or not path.stat().st_size:
        raise ConversionFailed("refused", output_lines[-1] if output_lines else "no reason given")


def main() -> None:
    """Run MNN's converter without its script, which installs a package and sends usage records."""
    import _tools  # type: ignore[import-not-found]  # MNN's

    _tools.mnnconvert(["mnnconvert", *sys.argv[1:]])


if __name__ == "__main__":
    main()
