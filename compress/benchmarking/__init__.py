"""Benchmarks: `bench` times models and files against each other, runtime by runtime."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compress.benchmarking.models import (
    FILE,
    BenchModel,
    Prepared,
    Skipped,
    models_of,
    prepare,
    require_a_runtime,
)
from compress.benchmarking.result import BenchResult, Timed, key_of, write_result
from compress.core.arguments import check_arguments
from compress.core.atomic_files import new_folder
from compress.core.errors import InputError
from compress.measure import Entry, time_entries
from compress.model.kinds import bytes_of
from compress.plan.bench import BenchPlan
from compress.plan.keywords import BENCH

if TYPE_CHECKING:
    from typing import Unpack

    from compress.benchmarking.models import ModelOrFile
    from compress.plan.settings import BenchSettings

__all__ = ["BenchPlan", "BenchResult", "Skipped", "BenchModel", "Timed", "bench"]


@check_arguments(options=BENCH)
def bench(
    *models: ModelOrFile | Sequence[ModelOrFile] | BenchPlan,
    plan: BenchPlan | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[BenchSettings],
) -> BenchResult:
    """Times models and files against each other, everything in one run of blocks.

    Keras models and SavedModels are converted for each runtime and format; a `.tflite`, `.onnx`
    or `.mnn` file is timed as it is. Each ratio is against the first model (the first of
    `compare`) in the same configuration (runtime, format, threads); what format a file holds is
    not known, so it is compared with any, the first that there is. Where one model is given,
    ratios are against its first configuration.

    Args:
        *models: Keras models (named as they are in Keras), files and folders of SavedModels, or
            a list of them; a plan may stand behind them.
        plan: Runtimes, formats, threads, precision, budget; keywords go over it.
        on_progress: Called with (what is done, share of it).
        **settings: Fields of `BenchPlan`: runtimes, formats, threads, compare, budget, ...

    Returns:
        Everything that was measured, and what was not with reasons.

    Raises:
        InputError: A file is missing, broken or of no known kind, a model's sizes are open, a
            name of `compare` is none of the models, or nothing is left to be timed.

    Example:
        >>> result = bench(model, folder / "model.keras", threads=[1, 2], budget=0.5)
        >>> len(result.timed), result.timed[0].latency.median_ms > 0
        (4, True)

    Reference:
        Paired blocks in random order, bootstrap over rounds: see docs/latency.md.
    """
    if models and isinstance(models[-1], BenchPlan):
        plan, models = models[-1], models[:-1]
    plan = BENCH.over(plan or BenchPlan(), settings)
    with tempfile.TemporaryDirectory() as place:
        given = models_of(models[0] if len(models) == 1 else models, Path(place))
        return _bench(given, plan, on_progress, Path(place))


def _bench(
    given: Sequence[BenchModel],
    plan: BenchPlan,
    on_progress: Callable[[str, float], None] | None,
    saved: Path,
) -> BenchResult:
    names = [model.name for model in given]
    for name in plan.compare:
        if name not in names:
            raise InputError(
                f"compare must name models of this bench: {', '.join(names)}. Received: {name}."
            )
    require_a_runtime(plan)
    tell = on_progress or (lambda text, share: None)  # noqa: ARG005
    with ExitStack() as stack:
        # files are made elsewhere: of a bench that fails nothing stays
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = stack.enter_context(new_folder(plan.out)) if plan.out else None
        tell("converting", 0.0)
        counted, prepared, skipped = prepare(given, plan, place)
        if not prepared:
            reasons = "; ".join(dict.fromkeys(item.reason for item in skipped))
            raise InputError(
                f"bench must have something to time. Received: {reasons}.{_remedy(given, plan)}"
            )
        keyed = {
            key_of(item.model, item.runtime, item.format, threads): (item, threads)
            for threads in plan.threads
            for item in prepared
        }
        tell("timing", 0.0)
        latency = time_entries(
            {
                key: Entry(item.path, item.runtime, threads)
                for key, (item, threads) in keyed.items()
            },
            precision=plan.precision,
            budget=plan.budget,
            baselines=_baselines(keyed, plan),
            seed=plan.seed,
            on_progress=lambda share: tell("timing", share),
        )
        timed = tuple(
            Timed(item.model, item.runtime, item.format, bytes_of(item.path), latency[key])
            for key, (item, _) in keyed.items()
        )
        # of a model that was no file there is none afterwards
        known = tuple(
            replace(item, path=Path(item.path.name)) if saved in item.path.parents else item
            for item in counted
        )
        result = BenchResult(known, timed, tuple(skipped), plan)
        if folder is not None:
            for file in sorted(place.iterdir()):
                shutil.move(file, folder / file.name)
            write_result(result, folder)
    return result


def _remedy(given: Sequence[BenchModel], plan: BenchPlan) -> str:
    """Says what runs a SavedModel that no converter takes."""
    if "tensorflow" in plan.runtimes or not any(model.path.is_dir() for model in given):
        return ""
    return " Give --runtimes tensorflow, which runs a SavedModel as it is."


def _baselines(keyed: dict[str, tuple[Prepared, int]], plan: BenchPlan) -> dict[str, str]:
    """Returns for each entry what its ratio is against: see `bench`."""
    models = {item.model for item, _ in keyed.values()}
    if len(models) == 1:
        return dict.fromkeys(keyed, next(iter(keyed)))
    ahead = sorted(keyed, key=lambda key: keyed[key][0].model != (*plan.compare, "")[0])

    def alike(one: str, other: str) -> bool:
        (a, a_threads), (b, b_threads) = keyed[one], keyed[other]
        same = a.format == b.format or FILE in (a.format, b.format)
        return same and (a.runtime, a_threads) == (b.runtime, b_threads)

    return {key: next(other for other in ahead if alike(key, other)) for key in keyed}
