"""Decisions of the scheduler on simulated runs."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from search.scheduler.forecast import FileResult
from search.scheduler.log import EndedStep, ScheduleLog, describe_schedule
from search.scheduler.records import (
    CONTINUE,
    EXPORT,
    PRUNE,
    TRIAL,
    TUNE,
    SizeResult,
    Step,
    StepResult,
)
from search.scheduler.scheduler import FIRST_TRIALS, SHARES, Scheduler

FORMATS = ("float32", "int8")


class World:
    """A machine and models whose qualities, costs and durations follow simple laws.

    Args:
        seed: Seed of the trials.
        recovery: Log of the error after fine-tuning over the original's, per halving of the MACs.
    """

    def __init__(self, seed: int = 0, recovery: float = 0.05) -> None:
        self._rng, self._recovery = random.Random(seed), recovery
        self.models: dict[str, tuple[float, float]] = {}

    def _files(self, quality: float, macs: float) -> tuple[FileResult, ...]:
        cost = 0.02 + macs / 1e8
        return (
            FileResult("float32", quality, cost),
            FileResult("int8", quality - 0.003, 0.6 * cost),
        )

    def do(self, step: Step) -> StepResult:
        """Returns what becomes of a step."""
        if step.kind == TRIAL:
            name = f"{len(self.models):04d}"
            macs = 10 ** self._rng.uniform(4.5, 7)
            quality = 0.95 - 0.1 * (macs / 1e5) ** -0.3 - abs(self._rng.gauss(0, 0.02))
            self.models[name] = quality, macs
            sizes = (SizeResult(1.0, quality, macs),)
            return StepResult(name, 5 + macs / 5e5, sizes, epochs=10)
        quality, macs = self.models[step.model]
        if step.kind == EXPORT:  # no two steps take equally long
            seconds = 8 + macs / 1e8
            return StepResult(
                step.model, seconds, (SizeResult(1.0, quality, macs, self._files(quality, macs)),)
            )
        error = 1 - quality
        if step.kind == CONTINUE:
            better = 1 - 0.9 * error
            self.models[step.model] = better, macs
            seconds = step.epochs * (5 + macs / 5e5) / 10
            return StepResult(step.model, seconds, (SizeResult(1.0, better, macs),), step.epochs)
        if step.kind == PRUNE:
            sizes = tuple(
                SizeResult(share, lower, share * macs, self._files(lower, share * macs))
                for share in SHARES
                for lower in [1 - error * (1 + math.log2(1 / share))]
            )
            return StepResult(step.model, 20 + macs / 1e8, sizes)
        tuned = 1 - error * math.exp(self._recovery * math.log2(1 / step.share) - 0.1)
        size = SizeResult(
            step.share, tuned, step.share * macs, self._files(tuned, step.share * macs)
        )
        seconds = 8 + 0.13 * step.epochs * (5 + macs / 5e5) * max(step.share, 0.25) + step.share
        return StepResult(step.model, seconds, (size,), step.epochs)


def make_scheduler(seconds: float = 600) -> Scheduler:
    return Scheduler(FORMATS, 0.1, 10, seconds)


def simulate(
    scheduler: Scheduler, world: World, workers: int = 1, trials: int = 60
) -> Iterator[tuple[float, Step, StepResult, float]]:
    """Yields each step that ended, in the order of time."""
    now, running = 0.0, list[tuple[float, Step, StepResult]]()
    while True:
        while len(running) < workers:
            step = scheduler.choose(now, may_search=len(world.models) < trials)
            if step is None:
                break
            result = world.do(step)
            running.append((now + result.seconds, step, result))
        if not running:
            return
        running.sort(key=lambda item: item[0])
        now, step, result = running.pop(0)
        yield now, step, result, scheduler.finish(step, result)


def test_models_are_searched_exported_pruned_and_tuned_within_the_time() -> None:
    scheduler = make_scheduler()
    ended = list(simulate(scheduler, World()))
    kinds = [step.kind for _, step, _, _ in ended]
    assert kinds[:FIRST_TRIALS] == [TRIAL] * FIRST_TRIALS
    assert {EXPORT, CONTINUE, PRUNE, TUNE} < set(kinds)
    # the last step ends in time, but for what its duration was underestimated
    assert ended[-1][0] < 1.05 * 600
    assert ended[-1][0] > 0.8 * 600
    # the best model so far is the teacher; each model is trained further before it is pruned
    tuned = next(step for _, step, _, _ in ended if step.kind == TUNE)
    before = [
        result
        for _, step, result, _ in ended[: kinds.index(TUNE)]
        if step.kind in (TRIAL, CONTINUE)
    ]
    assert tuned.teacher == max(before, key=lambda item: item.sizes[0].quality).model
    # what was expected of fine-tunings comes close to what they brought
    errors = [
        abs(step.quality - result.sizes[0].quality)
        for _, step, result, _ in ended
        if step.kind == TUNE and step.quality is not None
    ]
    assert sum(errors[-5:]) / 5 < 0.005


def test_a_model_is_trained_further_before_it_is_pruned_where_time_is_left() -> None:
    """Not afterwards: what was pruned would stay as it was."""
    ended = [step for _, step, _, _ in simulate(make_scheduler(), World())]
    for place, step in enumerate(ended):
        before = [item.kind for item in ended[:place] if item.model == step.model]
        if step.kind == CONTINUE:
            assert before == [EXPORT]
            # 0.4 of the time that was left, at most twice the epochs of a fine-tuning
            assert step.seconds <= 0.4 * (600 - step.begun) + 1e-9
            assert 1 <= step.epochs <= 20
        elif step.kind == PRUNE and step.begun < 400:
            assert before[:3] == [EXPORT, CONTINUE, EXPORT]
    # what became no better is not exported again
    scheduler, world = make_scheduler(), World()
    now, continued = 0.0, ""
    while (step := scheduler.choose(now)) is not None:
        if continued:
            assert (step.kind, step.model) != (EXPORT, continued)
        result = world.do(step)
        now += result.seconds
        if step.kind == CONTINUE:
            result, continued = replace(result, sizes=()), step.model
        scheduler.finish(step, result)
    assert continued


def test_further_training_leaves_time_for_what_it_is_for() -> None:
    for seconds in range(60, 400, 10):
        scheduler, world, now = make_scheduler(seconds), World(), 0.0
        while (step := scheduler.choose(now)) is not None:
            if step.kind == CONTINUE:
                scheduler.cancel(step)
                others = list(scheduler._list_steps(seconds - now - step.seconds))
                scheduler.resume(step)
                assert {PRUNE, TUNE} & {it.kind for it in others if it.model == step.model}
            result = world.do(step)
            now += result.seconds
            scheduler.finish(step, result)


def test_a_pruning_of_few_sizes_counts_as_one_of_all() -> None:
    scheduler = make_scheduler()
    pruned = next(item for item in simulate(scheduler, World()) if item[1].kind == PRUNE)
    expected = scheduler.estimate_seconds(PRUNE)
    step, result = Step(1000, PRUNE, pruned[1].model), pruned[2]
    scheduler.resume(step)
    # two of five sizes in two fifths of the time
    scheduler.finish(step, replace(result, sizes=result.sizes[:2], seconds=0.4 * result.seconds))
    assert scheduler.estimate_seconds(PRUNE) == pytest.approx(expected)
    # the second and the fifth: sizes before that cannot be had took their time too
    sizes = result.sizes[1::3]
    scheduler.resume(step)
    scheduler.finish(step, replace(result, sizes=sizes))
    assert scheduler.estimate_seconds(PRUNE) == pytest.approx(expected)
    # one that failed counts as long as it took
    scheduler.resume(step)
    scheduler.finish(step, replace(result, sizes=(), seconds=expected, reason="it failed"))
    assert scheduler.estimate_seconds(PRUNE) == pytest.approx(expected)


def test_a_pruning_begins_while_one_size_can_be_fine_tuned() -> None:
    scheduler = make_scheduler()
    name = next(item[1].model for item in simulate(scheduler, World()) if item[1].kind == PRUNE)
    pruning, export = map(scheduler.estimate_seconds, (PRUNE, EXPORT))
    model = scheduler.models[name]  # as before it was pruned
    model.epoch_seconds, model.is_pruned = 0.001, False
    model.sizes.clear()
    steps = []
    for left in (0.15, 0.25, 2.0):
        step = scheduler.choose(600 - export - left * pruning, may_search=False)
        assert step is not None
        scheduler.cancel(step)
        steps.append(step)
    # the first of five sizes takes a fifth of the time
    assert [step.kind == PRUNE for step in steps] == [False, True, True]
    few, all_sizes = steps[1:]
    assert few.seconds == pytest.approx(export + 0.25 * pruning)
    assert export < few.reserved < export + 0.05 * pruning
    assert all_sizes.seconds == pytest.approx(all_sizes.reserved + pruning)


def test_the_most_accurate_model_is_pruned_first() -> None:
    """Whether to shrink it or to train small ones is found out before anything else is tried."""
    ended = [(step, result) for _, step, result, _ in simulate(make_scheduler(), World())]
    kinds = [step.kind for step, _ in ended]
    first = kinds.index(PRUNE)
    assert kinds[FIRST_TRIALS : first + 1] == [EXPORT, CONTINUE, EXPORT, PRUNE]
    trials = [result for _, result in ended[:FIRST_TRIALS]]
    best = max(trials, key=lambda item: item.sizes[0].quality).model
    assert {step.model for step, _ in ended[FIRST_TRIALS : first + 1]} == {best}


def test_the_front_is_of_files_that_no_other_beats() -> None:
    scheduler = make_scheduler()
    for _ in simulate(scheduler, World()):
        pass
    files = [file for model in scheduler.models.values() for _, file in model.list_files()]
    front = [file for _, _, file in scheduler.list_front()]
    for file in files:
        matched = [other for other in front if other.cost <= 1.03 * file.cost]
        assert any(other.quality >= file.quality for other in matched)
    for one, other in pairwise(front):
        assert other.cost > 1.03 * one.cost
        assert other.quality > one.quality


def test_a_size_whose_files_save_no_time_is_worth_least() -> None:
    """The int8 file of the largest size takes as long as that of the original."""

    def list_gains(ratio: float) -> dict[float, float]:
        scheduler = make_scheduler()
        original = 0.9, 1e6
        for step, sizes in (
            (TRIAL, (SizeResult(1.0, *original),)),
            (CONTINUE, ()),
            (EXPORT, (SizeResult(1.0, *original, make_files(0.9, 0.1, 0.04)),)),
            (PRUNE, tuple(
                SizeResult(share, 0.85, share * 1e6, make_files(0.85, 0.1 * share, cost))
                for share in SHARES
                for cost in [0.04 * (ratio if share == 0.6 else share)]
            )),
        ):  # fmt: skip
            begun = Step(len(scheduler.ended), step, "" if step == TRIAL else "0000")
            scheduler.resume(begun)
            scheduler.finish(begun, StepResult("0000", 20.0, sizes, epochs=10))
        chosen = {}
        while (step := scheduler.choose(100.0, may_search=False)) is not None:
            chosen[step.share] = step.gain
        return chosen

    slow, fast = list_gains(1.0), list_gains(0.6)
    assert set(slow) == set(fast) == set(SHARES)
    assert [*slow][-1] == 0.6  # the last one that is chosen
    assert slow[0.6] < 0.3 * fast[0.6]


def make_files(quality: float, cost: float, int8_cost: float) -> tuple[FileResult, ...]:
    return FileResult("float32", quality, cost), FileResult("int8", quality, int8_cost)


def test_a_model_that_the_sizes_of_another_will_beat_is_left_alone() -> None:
    scheduler = make_scheduler(3600)
    # the smaller model is worse than the larger one will be at the same cost
    for name, quality, macs in (("0000", 0.9, 1e6), ("0001", 0.7, 3e5)):
        files = make_files(quality, macs / 1e7, macs / 2e7)
        for kind, sizes in (
            (TRIAL, (SizeResult(1.0, quality, macs),)),
            (EXPORT, (SizeResult(1.0, quality, macs, files),)),
        ):
            step = Step(len(scheduler.ended), kind, "" if kind == TRIAL else name)
            scheduler.resume(step)
            scheduler.finish(step, StepResult(name, 20.0, sizes, epochs=10))
    first = scheduler.choose(100.0, may_search=False)
    assert first is not None
    assert (first.kind, first.model) == (CONTINUE, "0000")
    other = scheduler.choose(100.0)
    assert other is not None
    assert other.kind == TRIAL
    scheduler.cancel(other)
    # once it has ended, its sizes are made
    scheduler.finish(first, StepResult("0000", 20.0, (), first.epochs))
    second = scheduler.choose(120.0, may_search=False)
    assert second is not None
    assert (second.kind, second.model) == (PRUNE, "0000")


def test_pruning_is_left_alone_where_it_never_pays() -> None:
    def count(recovery: float) -> int:
        steps = simulate(make_scheduler(), World(recovery=recovery))
        return sum(step.kind == TUNE and step.share < 1 for _, step, _, _ in steps)

    assert count(1.5) < count(0.05)


def test_the_same_outcomes_and_times_give_the_same_decisions() -> None:
    first = make_scheduler()
    ended = list(simulate(first, World(3), workers=3))
    # another scheduler is given the recorded results, whenever it takes the recorded step
    second = make_scheduler()
    events = sorted(
        [(step.begun, 1, step.number, step, None) for _, step, _, _ in ended]
        + [(now, 0, step.number, step, result) for now, step, result, _ in ended],
        key=lambda item: item[:3],
    )
    trials = 0
    for now, _, _, step, result in events:
        if result is None:
            assert second.choose(now, may_search=trials < 60) == step
            trials += step.kind == TRIAL
        else:
            second.finish(step, result)
    assert second.list_front() == first.list_front()


def test_a_log_brings_a_scheduler_to_where_it_was(tmp_path: Path) -> None:
    log, first, world = ScheduleLog(tmp_path), make_scheduler(), World()
    for count, (now, step, result, gain) in enumerate(simulate(first, world)):
        log.write("begun", step.to_json())
        log.write("ended", {"number": step.number, "at": now, "gain": gain, **result.to_json()})
        if count == 15:
            break
    # a step was running, and a line half-written, when the process was killed
    pending = first.choose(now)
    assert pending is not None
    for _ in range(2):  # it began again, and was killed again
        log.write("begun", pending.to_json())
    with log.path.open("a") as stream:
        stream.write('{"event": "ended", "numb')
    second = make_scheduler()
    assert log.replay(second) == pytest.approx(now)
    assert second.running == [pending]
    assert second.list_front() == first.list_front()
    assert second.choose(now + 50) == first.choose(now + 50)
    # what is written after the half line is read, too
    log.write("ended", {"number": pending.number, "at": now + 9, "gain": 0.0,
                        **world.do(pending).to_json()})  # fmt: skip
    third = make_scheduler()
    assert log.replay(third) == pytest.approx(now + 9)
    assert third.running == []
    assert len(log.list_ended()) == len(third.ended) == len(first.ended) + 1


def test_what_fails_is_not_tried_again() -> None:
    scheduler, world = make_scheduler(), World()
    tried = []
    now = 0.0
    while (step := scheduler.choose(now)) is not None:
        result = world.do(step)
        now += result.seconds
        if step.kind in (PRUNE, TUNE):
            tried.append((step.kind, step.model, step.share))
            result = replace(result, sizes=(), reason="it failed")
        scheduler.finish(step, result)
    assert len(tried) == len(set(tried)) > 3


def test_nothing_begins_that_does_not_fit() -> None:
    scheduler, world = make_scheduler(seconds=45), World()
    ended = list(simulate(scheduler, world))
    assert ended
    assert all(step.begun + min(step.seconds, 40) <= 45 for _, step, _, _ in ended[1:])
    # nobody exports what was trained last
    scheduler = make_scheduler()
    trial = scheduler.choose(0.0)
    assert trial is not None
    scheduler.finish(trial, world.do(trial))
    assert scheduler.choose(597.0, may_search=False) is None
    assert scheduler.choose(500.0, may_search=False).kind == EXPORT  # type: ignore[union-attr]
    # the number of trials is limited, too
    kinds = [step.kind for _, step, _, _ in simulate(make_scheduler(), World(), trials=5)]
    assert kinds.count(TRIAL) == 5


def test_workers_never_do_the_same() -> None:
    scheduler, pairs = make_scheduler(), 0
    for _ in simulate(scheduler, World(), workers=3):
        running = [(item.kind, item.model, item.share) for item in scheduler.running if item.model]
        assert len(running) == len(set(running))
        pairs += len(running) > 1
    assert pairs


def test_first_trials_take_a_share_of_a_short_time() -> None:
    """Of 90 s, others may begin after 18: before that there are fewer than four trials."""
    ended = list(simulate(make_scheduler(seconds=90), World()))
    begun = [step.begun for _, step, _, _ in ended if step.kind == TRIAL]
    other = min(step.begun for _, step, _, _ in ended if step.kind != TRIAL)
    assert 18 <= other < 90
    assert 1 <= sum(moment < other for moment in begun) < FIRST_TRIALS


def test_the_description_of_a_schedule() -> None:
    """Few fine-tuned sizes have no rank correlation, four have one."""

    def tuning(number: int, forecast: float, quality: float) -> EndedStep:
        step = Step(number, TUNE, "0001", 0.5, 4, "0002", quality=forecast)
        return step, StepResult("0001", 2.0, (SizeResult(0.5, quality, 1000.0),), 4), 0.1

    assert describe_schedule([tuning(0, 0.9, 0.92)]) == [
        "The workers spent 2 s: 1 x fine-tuning (2 s).",
        "Of 1 fine-tuned size, the result was +2.00 pp from the forecast on average.",
    ]
    several = [tuning(0, 0.9, 0.92), tuning(1, 0.8, 0.81), tuning(2, 0.7, 0.7)]
    assert describe_schedule(several)[1].endswith(" on average.")
    longer = Step(3, CONTINUE, "0001"), StepResult("0001", 5.0, (), 4), 0.0
    assert describe_schedule([*several, longer])[0] == (
        "The workers spent 11 s: 3 x fine-tuning (6 s), 1 x longer training (5 s)."
    )
    assert describe_schedule([*several, tuning(3, 0.6, 0.61)])[1] == (
        "Of 4 fine-tuned sizes, the result was +1.00 pp from the forecast on average, with a rank "
        "correlation of 1.00."
    )
