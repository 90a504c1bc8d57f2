"""The exported files timed against each other, with every runtime of the plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError, RunFailed
from compress.core.plugins import MAIN_RUNTIME, RUNTIMES
from compress.core.registry import loaded
from compress.measure import measure_latency
from compress.pipeline.context import OnProgress, silent
from compress.plan import Plan
from compress.run.compressed import Artifact
from compress.run.directory import LOG, RunFolder

if TYPE_CHECKING:
    from compress.measure.runtimes import Runtime


def measure_stage(folder: RunFolder, plan: Plan, on_progress: OnProgress = silent) -> None:
    """Times the exported files with every runtime of the plan, once.

    A runtime that is missing or refuses a file is skipped, with the reason on record.
    """
    for runtime in plan.latency.runtimes:
        if runtime == MAIN_RUNTIME:
            _litert(folder, plan, on_progress)
        else:
            _other(runtime, folder, plan, on_progress)


def _artifacts(folder: RunFolder) -> list[Artifact]:
    return [item for record in folder.read_compressed() for item in record.files()]


def _other(runtime: str, folder: RunFolder, plan: Plan, on_progress: OnProgress) -> None:
    """Times with a runtime beside LiteRT, or notes why not."""
    from compress.core.errors import MissingDependency

    path, made = folder.latency_of(runtime), RUNTIMES[runtime]
    chosen = [item for item in _artifacts(folder) if item.format in made.exported]
    if path.exists() and list(read_json(path)) == [item.id for item in chosen]:
        return
    if not chosen:
        needed = made.exported[0]
        write_json(path, {"skipped": f"there are no {needed} files: add {needed} to --formats"})
        return
    try:
        files = _converted(made, chosen, folder, on_progress)
        on_progress(f"timing with {runtime}", 0.0)
        timed = measure_latency(
            files,
            plan.latency,
            baselines={item.id: _baseline(item, chosen) for item in chosen},
            runtime=runtime,
            seed=plan.seed,
            on_progress=lambda share: on_progress(f"timing with {runtime}", share),
        )
    except (InputError, MissingDependency, RunFailed) as error:
        LOG.warning("%s was skipped: %s", runtime, error)
        write_json(path, {"skipped": str(error)})
        return
    write_json(path, {name: latency.to_json() for name, latency in timed.items()})


def _baseline(item: Artifact, among: list[Artifact]) -> str:
    """Returns the same model's first dense file among those that are timed."""
    return next(
        other.id
        for other in (*among, item)
        if other.model == item.model and (other.variant == "dense" or other is item)
    )


def _paths(artifacts: list[Artifact], folder: RunFolder) -> dict[str, Path]:
    return {item.id: folder.path / item.file for item in artifacts}


def _converted(
    runtime: Runtime, artifacts: list[Artifact], folder: RunFolder, on_progress: OnProgress
) -> dict[str, Path]:
    """Returns the files that a runtime is given, converted to its own kind where it needs that."""
    if not runtime.converter:
        return _paths(artifacts, folder)
    convert, files = loaded(runtime.converter), {}
    for item in artifacts:
        on_progress(f"converting {item.id} for {runtime.name}", 0.0)
        files[item.id] = folder.exports / f"{item.id}{runtime.suffixes[0]}"
        convert(folder.path / item.file, files[item.id])
    return files


def _litert(folder: RunFolder, plan: Plan, on_progress: OnProgress) -> None:
    """Times all exported LiteRT files of a folder against each other, once.

    Each file's ratio is against its own model's first dense format. A folder whose
    files have all been timed together is left as it is.
    """
    artifacts = [item for item in _artifacts(folder) if item.file.endswith(".tflite")]
    names = [artifact.id for artifact in artifacts]
    if not names or (folder.latency.exists() and list(read_json(folder.latency)) == names):
        return
    on_progress("timing", 0.0)
    result = measure_latency(
        _paths(artifacts, folder),
        plan.latency,
        baselines={item.id: _baseline(item, artifacts) for item in artifacts},
        seed=plan.seed,
        on_progress=lambda share: on_progress("timing", share),
    )
    write_json(folder.latency, {name: latency.to_json() for name, latency in result.items()})
    slowest = next(iter(result.values()))
    LOG.info(
        "timed %d files: %d rounds, stopped by %s", len(names), slowest.rounds, slowest.stopped_by
    )
