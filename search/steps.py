"""The steps of a run after its checks: search, final trainings, compression of the front."""

from __future__ import annotations

from pathlib import Path

from compress.core.errors import RunFailed
from compress.data import Dataset
from compress.run.directory import LOG
from search.engines import Display
from search.engines.jobs import CompressJobs, FinalJobs, SearchJobs
from search.engines.pool import Pool
from search.plan import SearchPlan
from search.study import study as studies
from search.study.checks import Past
from search.study.costs import NAMES, limits
from search.study.directory import SearchFolder
from search.study.front import going_on
from search.study.records import COMPLETE, FAILED, Candidate
from search.study.recovery import recover
from search.study.retrain import promote_best


def search_front(
    folder: SearchFolder, plan: SearchPlan, data: Dataset, pool: Pool, display: Display
) -> None:
    """Gives out trials until the search is over.

    Raises:
        RunFailed: No candidate could be trained.
    """
    options = plan.search
    LOG.info(
        "1 define the space: '%s' on '%s'; limits: %s",
        options.space, data.name,
        ", ".join(f"{limit:,} {NAMES[name]}" for name, limit in limits(options).items()) or "none",
    )  # fmt: skip
    LOG.info(
        "2 sample with %s; 3 %s and evaluate %s against %s; 4 update the strategy; "
        "5 repeat until %d candidates are %s",
        options.strategy, "repair" if options.no_train else f"train {options.epochs} epochs",
        options.objectives[0], ", ".join(options.costs), options.trials,
        "judged" if options.no_train else f"trained; stopping: {plan.stopping.rule}",
    )  # fmt: skip
    candidates = folder.read_candidates()
    lost = recover(folder, plan, data, candidates)
    study = studies.open_study(folder, plan)
    again = studies.close_orphans(study, folder, plan)
    if again:
        LOG.info("%d interrupted trial(s) will run again", again)
    studies.enqueue_first(study, plan, data, lost)
    handler = SearchJobs(folder, plan, study, display, candidates)
    if handler.ended:
        LOG.info("going on: %d candidates are finished", handler.ended)
    display.phase("Searching", handler.ended, options.trials)
    pool.run(handler)
    # of workers that were lost before they could say which trial they had begun
    studies.close_orphans(study, folder, plan)
    if not any(item.state == COMPLETE for item in handler.candidates):
        raise RunFailed(nothing_trained(handler.candidates, plan))
    LOG.info("search over after %d trials: %s", handler.ended, handler.over)


def nothing_trained(candidates: list[Candidate], plan: SearchPlan) -> str:
    """Says why no candidate was trained: the first failure, or limits that none met."""
    failed = [item for item in candidates if item.state == FAILED]
    if failed:
        return f"No candidate could be trained. The first failed: {failed[0].reason}."
    smallest = {
        name: min((getattr(item, name) or 0 for item in candidates), default=0)
        for name in limits(plan.search)
    }
    given = ", ".join(f"{limit:,} {NAMES[name]}" for name, limit in limits(plan.search).items())
    least = ", ".join(f"{value:,} {NAMES[name]}" for name, value in smallest.items())
    return (
        f"All {len(candidates)} candidates exceed the limits ({given}). The smallest have {least}. "
        "Raise the limits."
    )


def train_finally(folder: SearchFolder, plan: SearchPlan, pool: Pool, display: Display) -> None:
    """Trains the front's candidates anew and settles which of the trainings go on."""
    front = [item.id for item in going_on(folder.read_candidates(), plan)]
    handler = FinalJobs(folder, plan, front, display, _teachers_of_parts(plan))
    LOG.info(
        "final trainings of the front (%s): %d epochs, %d seed(s)%s",
        ", ".join(front), plan.final_epochs, plan.final.seeds,
        ", validation part included" if plan.final.on_validation else "",
    )  # fmt: skip
    display.phase("Training the front", handler.done, handler.total)
    pool.run(handler)
    if handler.failures:
        raise RunFailed(
            f"Final trainings failed: {'; '.join(handler.failures)}. The same command tries them "
            "again."
        )
    for name in front:
        promote_best(name, folder, plan.search.objectives[0])


def _teachers_of_parts(plan: SearchPlan) -> tuple[Path, ...]:
    """Returns who teaches sub-networks that were judged untrained: the whole, unless others do."""
    if not plan.search.no_train:
        return ()
    if not plan.distill.teacher.automatic:
        return plan.distill.teacher.files
    whole = plan.search.made_space.whole()
    assert whole is not None, "the space is around a model"
    return (whole[0],)


def compress_front(
    folder: SearchFolder, plan: SearchPlan, pool: Pool, display: Display, past: Past
) -> list[str]:
    """Compresses what of the front is not yet; returns what failed, with reasons."""
    members = going_on(folder.read_candidates(), plan)
    front = [item.id for item in members]
    teachers = list(plan.distill.teacher.files)
    if plan.distill.teacher.automatic:
        quality = plan.search.objectives[0]
        best = max(members, key=lambda item: item.val[quality])
        teachers = [folder.shipped_file(best.id)]
    pending = [name for name in front if not folder.is_compressed(name)]
    LOG.info(
        "compressing the front (%s), weights %s, teacher: %s",
        ", ".join(front), plan.weights.label,
        " and ".join(map(str, teachers)) or "none",
    )  # fmt: skip
    handler = CompressJobs(folder, plan, pending, teachers, display, past)
    display.phase("Compressing", 0, len(pending), steps=True)
    pool.run(handler)
    return handler.failures
