"""A worker that trains nothing: it asks, sleeps as long as a training takes, and tells.

    python -m benchmarks._sleeper FOLDER --storage URL --seconds 10 --trials 2000 --start TIME
        --end TIME

What it asks of the storage is what a worker of ours asks: `search.study.study.ask_trial` with its
sampler, all choices of the space `cnn`, seed, costs, a report at two rungs, the look for the same
choices among finished trials, and `tell`. It ends when the study has enough finished trials or
the time is over, and prints what it did as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from compress.core.faults import ServiceTimeout
from compress.data import Dataset, load_data
from compress.plan import DataOptions
from search.plan import SearchPlan
from search.spaces import SPACES
from search.spaces._base import ask_choices
from search.study import optimizers
from search.study import study as studies
from search.study.directory import COMPLETE, Candidate, SearchFolder
from search.study.objective import (
    DominanceStopper,
    find_same_choices,
    format_candidate_id,
    get_trial_seed,
)
from search.study.study import ask_trial


def counted(study: Any) -> Counter[str]:
    """Count the calls of a study's storage from now on, by name."""
    storage, calls = study._storage, Counter[str]()

    class Counting:
        def __getattr__(self, name: str) -> Any:
            held = getattr(storage, name)
            if callable(held) and not name.startswith("_"):
                calls[name] += 1
            return held

    study._storage = Counting()
    return calls


def trial_of(
    study: Any, plan: SearchPlan, data: Dataset, seconds: float, rng: random.Random
) -> None:
    """Run one trial, from its ask to its tell."""
    trial = ask_trial(study, plan)
    trial.set_user_attr("seed", get_trial_seed(plan, trial))
    ask_choices(trial, SPACES["cnn"].choices(data))
    optimizers.sample_settings(trial, plan, data)
    find_same_choices(trial)
    macs, quality = rng.randrange(10**5, 10**7), rng.random()
    stopper = DominanceStopper(trial, 9.0, plan.list_rungs(), [macs])
    time.sleep(seconds * rng.uniform(0.8, 1.2))
    for rung in plan.list_rungs()[:2]:
        stopper.should_stop(rung, quality)
    done = Candidate(format_candidate_id(trial.number), COMPLETE, dict(trial.params), 1, macs=macs,
                     params=1, val={"accuracy": quality})  # fmt: skip
    studies.finish_trial(study, done, plan)


def work() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--storage", default="")
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--start", type=float, required=True)
    parser.add_argument("--end", type=float, required=True)
    parser.add_argument("--worker", type=int, default=0)
    given = parser.parse_args()
    from compress.plan.nesting import from_flat

    plan = from_flat(SearchPlan, {"storage": given.storage, "sampler": given.sampler})
    data = load_data(DataOptions("digits"), seed=0)
    study = studies.open_study(SearchFolder(given.folder), plan)
    storage = study._storage
    calls, rng, count = counted(study), random.Random(given.worker), 0
    late = max(0.0, time.time() - given.start)
    time.sleep(max(0.0, given.start - time.time()))
    began, used, problem = time.time(), time.process_time(), ""
    with suppress(KeyboardInterrupt):
        # not a call of ours: how many were begun; the queue holds none
        while time.time() < given.end and storage.get_n_trials(study._study_id) < given.trials:
            try:
                trial_of(study, plan, data, given.seconds, rng)
            except ServiceTimeout as error:
                problem = str(error)
                break
            count += 1
    print(json.dumps({
        "trials": count, "calls": sum(calls.values()), "late": late, "problem": problem,
        "began": began, "ended": time.time(), "cpu": time.process_time() - used,
    }))  # fmt: skip


if __name__ == "__main__":
    work()
