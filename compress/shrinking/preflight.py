"""What can be found wrong with a plan before TensorFlow, which takes seconds, is imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from compress.core.device import check_device
from compress.core.errors import InputError
from compress.core.plugins import LOGS, RUNTIMES
from compress.core.requirements import FORMATS, require_packages
from compress.data import check_source
from compress.measure.runtimes import runtimes
from compress.model.kinds import check_model_file
from compress.plan import Plan
from compress.run.directory import RunFolder


def preflight(
    plan: Plan, folder: RunFolder, models: Iterable[Path] = (), *, data: bool, files: bool
) -> None:
    """Checks files, packages, the device and the output folder that a plan names.

    Args:
        plan: Of a compression, or of a run that does more.
        folder: Where its results go.
        models: Files beside the teachers'.
        data: Whether the plan's data are read (else they were handed over).
        files: Whether files are exported and timed.

    Raises:
        InputError: A file does not exist or has another suffix, the data source cannot be found,
            there is no GPU, or the folder cannot be written to or holds other files.
        MissingDependency: A package that a format, a runtime or a log needs is not installed.
    """
    if data:
        check_source(plan.data)
    for path in (*models, *plan.distill.teacher.files):
        check_model_file(path)
    if files:
        for name in plan.export.formats:
            require_packages(FORMATS.get(name, ()), f"format {name}")
        for name in plan.latency.runtimes:
            RUNTIMES.require_installed(name)
            if not RUNTIMES[name].exported:
                timed = ", ".join(item.name for item in runtimes() if item.exported)
                raise InputError(
                    f"runtimes of exported files must be among {timed}. Received: {name}."
                )
    for name in plan.log:
        LOGS.require_installed(name)
    check_device(plan.device)
    folder.check_usable()
