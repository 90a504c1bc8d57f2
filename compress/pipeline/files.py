"""The files of a model: exported, and each judged as the file that it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.columns import count, taken
from compress.measure import count_macs
from compress.model.heads import counted_at, decides_at
from compress.pipeline.context import Work
from compress.plan import Plan
from compress.run.compressed import Artifact
from compress.run.directory import LOG, RunFolder
from compress.task import Task

if TYPE_CHECKING:
    import keras

    from compress.exporting import Exported
    from compress.measure.runtimes import Session


@dataclass(frozen=True)
class Variant:
    """A model to export.

    Attributes:
        model: Any Keras model.
        stem: Begins the names of its files.
        of: Name of the model that is compressed.
        kind: "dense" or "pruned".
        sparsity: Share of zeros among the weights that were pruned.
        val: Validation quality of its files by format, where it is known: it is not asked again.
    """

    model: keras.Model
    stem: str
    of: str
    kind: str
    sparsity: float = 0.0
    val: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def judged_files(
    variant: Variant, work: Work, folder: RunFolder
) -> tuple[list[Artifact], list[str]]:
    """Exports a model and judges every file: validation data may choose among them, test data
    say how good they are.

    Returns:
        What was made, and for each format that could not be made the reason.
    """
    from compress.exporting import export

    stem, plan = variant.stem, work.plan
    work.progress(f"exporting {stem}", 0.0)
    missing: list[str] = []
    formats = plan.export.formats
    if variant.kind == "dense" and formats != ("sparse",):
        # nothing to leave out of a file without zeros
        formats = tuple(kind for kind in formats if kind != "sparse")

    def refused(kind: str, reason: str) -> None:
        LOG.warning("%s.%s was not made: %s", stem, kind, reason)
        missing.append(f"{stem}.{kind} was not made: {reason}")

    made = export(
        variant.model,
        folder.exports / stem,
        data=work.data,
        options=replace(plan.export, formats=formats),
        seed=plan.seed,
        on_refusal=refused,
    )
    return artifacts_of(variant, made, work, folder), missing


def artifacts_of(
    variant: Variant, files: Iterable[Exported], work: Work, folder: RunFolder
) -> list[Artifact]:
    """Judges files that were exported; see `judged_files`.

    Args:
        variant: Of which they are.
        files: The files.
        work: Data and seed.
        folder: In which they lie.
    """
    from compress.exporting.files import answered_part
    from compress.measure.runtimes import session_for
    from compress.measure.size import file_sizes

    model, stem, data, plan = variant.model, variant.stem, work.data, work.plan
    analysis = count_macs(model, counted_at(model, data.input_shapes))
    threshold = decides_at(model, data.task)
    labels = {part: data.labels(data.split(part)) for part in ("test", "val")}

    def quality(labels: Any, scores: Any) -> dict[str, float]:
        found = data.task.quality(labels, scores, threshold=threshold)
        main = data.task.qualities[0]
        return {main: found[main], **found}  # the first is the one that judges

    artifacts = []
    for made in files:
        session, name = session_for(made.path), made.path.name

        def answers(part: str, doing: str, session: Session = session, name: str = name) -> Any:
            told = partial(work.progress, f"{doing} {name}")
            return answered_part(model, session, data, part, told)

        scores = answers("test", "testing")
        val = variant.val.get(made.format) or quality(labels["val"], answers("val", "validating"))
        sizes = file_sizes(made.path)
        artifacts.append(
            Artifact(
                id=f"{stem}.{made.format}",
                model=variant.of,
                variant=variant.kind,
                format=made.format,
                file=folder.relative(made.path),
                baseline="",
                macs=analysis.macs,
                params=analysis.params,
                nonzero=analysis.nonzero,
                sparsity=variant.sparsity,
                unsupported=analysis.unsupported,
                size_bytes=sizes.size,
                gzip_bytes=sizes.gzip,
                test=quality(labels["test"], scores),
                max_difference=made.max_difference,
                agreement=made.agreement,
                checked=made.checked,
                zstd_bytes=sizes.zstd,
                sparse_macs=analysis.sparse_macs,
                val=dict(val),
                tested=len(data.test),
                # a share of right examples needs no more than their number
                test_interval=None
                if data.task.qualities[0] in data.task.shares
                else _interval(data.task, labels["test"], scores, threshold, plan.seed),
            )
        )
    return artifacts


def _interval(
    task: Task, labels: Any, scores: Any, threshold: Any, seed: int
) -> tuple[float, float] | None:
    """Returns the 95 % interval of the main quality on the test part."""
    from compress.measure.sampling import resampled

    tallies = task.tallies(labels, scores, threshold=threshold)

    def quality(picked: npt.NDArray[np.int64]) -> dict[str, float]:
        if tallies is not None:
            return task.of_tallies(tallies[picked].sum(0))
        return task.quality(taken(labels, picked), taken(scores, picked), threshold=threshold)

    return resampled(count(scores), quality, task.qualities[0], seed=seed)


def with_baseline(artifacts: list[Artifact], plan: Plan) -> list[Artifact]:
    """Names what each file is held against: the dense file of the first format that was made."""
    formats = ("float32", *plan.export.formats)
    dense = [item for item in artifacts if item.variant == "dense"]
    baseline = min(dense, key=lambda item: formats.index(item.format))
    return [replace(item, baseline=baseline.id) for item in artifacts]
