"""The exported files timed against each other, with every runtime of the plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError, MissingDependency, RunFailed
from compress.core.plugins import MAIN_RUNTIME, RUNTIMES
from compress.core.progress import OnProgress, silent
from compress.core.registry import loaded
from compress.measure import measure_latency
from compress.plan import Plan
from compress.run.compressed import Artifact
from compress.run.directory import LOG, RunFolder

if TYPE_CHECKING:
    from compress.measure.runtimes import Runtime


def measure_stage(folder: RunFolder, plan: Plan, on_progress: OnProgress = silent) -> None:
    """Times the exported files with every runtime of the plan, once.

    Each file's ratio is against its own model's first dense file; all files of a runtime are timed
    against each other, and a folder where that is done is left as it is. A runtime that is missing
    or refuses a file is skipped, with the reason on record; of the main one it is an error.
    """
    for name in plan.latency.runtimes:
        _timed(name, folder, plan, on_progress)


def _timed(name: str, folder: RunFolder, plan: Plan, on_progress: OnProgress) -> None:
    """Times with one runtime, or notes why not."""
    path, runtime, main = folder.latency_of(name), RUNTIMES[name], name == MAIN_RUNTIME
    records = folder.read_compressed()
    chosen = [item for made in records for item in made.files() if item.format in runtime.exported]
    if path.exists() and list(read_json(path)) == [item.id for item in chosen]:
        return
    if not chosen:
        if not main:
            needed = runtime.exported[0]
            reason = f"there are no {needed} files: add {needed} to --formats"
            write_json(path, {"skipped": reason})
        return
    try:
        files = _files(runtime, chosen, folder, on_progress)
        on_progress(f"timing with {name}", 0.0)
        found = measure_latency(
            files,
            plan.latency,
            baselines={item.id: _baseline(item, chosen) for item in chosen},
            runtime=name,
            seed=plan.seed,
            on_progress=lambda share: on_progress(f"timing with {name}", share),
        )
    except (InputError, MissingDependency, RunFailed) as error:
        if main:
            raise
        LOG.warning("%s was skipped: %s", name, error)
        write_json(path, {"skipped": str(error)})
        return
    write_json(path, {key: latency.to_json() for key, latency in found.items()})
    first = next(iter(found.values()))
    LOG.info(
        "timed %d files with %s: %d rounds, stopped by %s",
        len(found), name, first.rounds, first.stopped_by,
    )  # fmt: skip


def _baseline(item: Artifact, among: list[Artifact]) -> str:
    """Returns the same model's first dense file among those that are timed."""
    return next(
        other.id
        for other in (*among, item)
        if other.model == item.model and (other.variant == "dense" or other is item)
    )


def _files(
    runtime: Runtime, artifacts: list[Artifact], folder: RunFolder, on_progress: OnProgress
) -> dict[str, Path]:
    """Returns the files that a runtime is given, converted to its own kind where it needs that."""
    if not runtime.converter:
        return {item.id: folder.path / item.file for item in artifacts}
    convert, files = loaded(runtime.converter), {}
    for item in artifacts:
        on_progress(f"converting {item.id} for {runtime.name}", 0.0)
        files[item.id] = folder.exports / f"{item.id}{runtime.suffixes[0]}"
        convert(folder.path / item.file, files[item.id])
    return files
