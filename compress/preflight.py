"""What can be found wrong with a plan before TensorFlow, which takes seconds, is imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from compress.data import check_source
from compress.device import check_device
from compress.io import check_model_file
from compress.plan import Plan
from compress.requirements import require_for_files
from compress.runfolder import RunFolder


def preflight(
    plan: Plan, folder: RunFolder, models: Iterable[Path] = (), *, data: bool, files: bool
) -> None:
    """Checks files, packages, the device and the output folder that a plan names.

    Args:
        plan: Of a compression or a search.
        folder: Where its results go.
        models: Files beside the teachers'.
        data: Whether the plan's data are read (else they were handed over).
        files: Whether files are exported and timed.

    Raises:
        InputError: A file does not exist or has another suffix, the data source cannot be found,
            there is no GPU, or the folder cannot be written to or holds other files.
        MissingDependency: A package that a format or a runtime needs is not installed.
    """
    if data:
        check_source(plan.data)
    for path in (*models, *plan.distill.teacher_files()):
        check_model_file(path)
    if files:
        require_for_files(plan.export.formats, plan.latency.runtimes)
    check_device(plan.device)
    folder.check_usable()
