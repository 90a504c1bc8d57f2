"""How a search's own seconds grow with its history: an ask, a resume, the report.

    python -m benchmarks.search_scale [--trials 100,1000,10000] [--sampler pareto] [--resume FILE]

Runs are made up: random candidates of the space `cnn` with their costs as counted and made-up
learning curves, half of them stopped after a quarter of their epochs. The journal is written by
what rebuilds a lost one. Then each is timed in a process of its own: what `paretune search` does
before its first new trial (resume), a worker's first ask, ten asks after that (median), and the
report. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._common import Benchmark, table
from benchmarks._stored import ROOT, Stored

EPOCHS = 8
ASKS = 10
PARTS = ("resume", "asks", "report")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=lambda text: tuple(map(int, text.split(","))),
                        default=(100, 1000, 10_000))  # fmt: skip
    parser.add_argument("--sampler", default="pareto")


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Makes runs of each length and times what comes after."""
    runs: dict[str, dict[str, Any]] = stored.result.setdefault("runs", {})
    for count in given.trials:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            made(folder, count, given.sampler)
            found: dict[str, Any] = {}
            for part in PARTS:
                code = f"from benchmarks import search_scale as own; own.timed({part!r})"
                done = subprocess.run(
                    [sys.executable, "-c", code, str(folder)],
                    cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                found |= json.loads(done.stdout.splitlines()[-1])
        runs[f"{given.sampler}, {count}"] = found
        print(count, found, flush=True)
        stored.save(runs=runs)


def _plan(folder: Path, sampler: str) -> Any:
    from compress.plan.fields import from_flat
    from search.plan import SearchPlan

    return from_flat(
        SearchPlan,
        {"data": "digits", "space": "cnn", "sampler": sampler, "epochs": EPOCHS,
         "trials": 100_000, "out": str(folder)},
    )  # fmt: skip


def made(path: Path, count: int, sampler: str) -> None:
    """Writes a run's folder as its trials would have left it, then its journal."""
    import optuna

    from compress import load_data
    from compress.run.origin import write_data_record
    from search.spaces import SPACES
    from search.spaces._choices import choose
    from search.study import optimizers
    from search.study.directory import COMPLETE, STOPPED, Candidate, SearchFolder
    from search.study.objective import candidate_id
    from search.study.recovery import recover

    plan, data = _plan(path, sampler), load_data("digits", seed=0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder, space = SearchFolder(path), SPACES["cnn"]
    folder.claim("search", plan, {"data": data.fingerprint()})
    write_data_record(folder, data)
    rng = np.random.default_rng(0)
    choices = space.choices(data)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(count):
        trial = study.ask()
        choose(trial, choices)
        optimizers.sample(trial, plan, data)
        macs, params = space.count(trial.params, data) or (0, 0)
        best = 0.95 - 0.4 * math.exp(-0.8 * (math.log10(macs) - 3)) + rng.normal(scale=0.02)
        stopped = bool(rng.random() < 0.5)
        curve = [best * (1 - 0.5 * 2.0**-epoch) for epoch in range(1, EPOCHS + 1)]
        curve = curve[: EPOCHS // 4] if stopped else curve
        folder.write_candidate(
            Candidate(
                candidate_id(number), STOPPED if stopped else COMPLETE, trial.params, number,
                reason="others were better" if stopped else "", macs=macs, params=params,
                val={"accuracy": curve[-1]}, best_epoch=len(curve), seconds=5.0, device="CPU",
                history=tuple({"epoch": place, "loss": 1.0, "val": {"accuracy": value}}
                              for place, value in enumerate(curve, start=1)),
                ended=1.7e9 + 5 * number,
            )
        )  # fmt: skip
    recover(folder, plan, data)


def timed(part: str) -> None:
    """Times one part in this process, for the run in the folder that was given."""
    from compress import load_data
    from search.engines import Display
    from search.engines.jobs import SearchJobs
    from search.report import render
    from search.spaces._choices import choose
    from search.study import optimizers
    from search.study import study as studies
    from search.study.directory import SearchFolder
    from search.study.recovery import recover
    from search.study.study import ask

    folder = SearchFolder(sys.argv[1])
    record = folder.read_plan_record()["plan"]["search"]
    plan, data = _plan(folder.path, record["sampler"]), load_data("digits", seed=0)
    choices = plan.search.made_space.choices(data)
    began = time.perf_counter()
    if part == "report":
        render(folder.path)
        print(json.dumps({"report": time.perf_counter() - began}))
        return
    if part == "resume":
        candidates = folder.read_candidates()
        recover(folder, plan, data, candidates)
        study = studies.open_study(folder, plan)
        studies.close_orphans(study, folder, plan)
        studies.enqueue_first(study, plan, data)
        jobs = SearchJobs(folder, plan, study, Display(), candidates)
        assert jobs.next_job() is not None
        print(json.dumps({"resume": time.perf_counter() - began}))
        return
    study = studies.open_study(folder, plan)
    seconds: list[float] = []
    for _ in range(ASKS + 1):
        begun = time.perf_counter() if seconds else began
        trial = ask(study, plan, data=data)
        choose(trial, choices)
        optimizers.sample(trial, plan, data)
        seconds.append(time.perf_counter() - begun)
        # nothing came of it: it tells others nothing
        study.tell(trial, state=_failed())
    print(json.dumps({"first": seconds[0], "ask": median(seconds[1:])}))


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def told(result: dict[str, Any]) -> str:
    """Seconds by sampler and number of trials."""
    rows = []
    for key, found in result["runs"].items():
        sampler, _, count = key.partition(", ")
        rows.append(
            [
                f"`{sampler}`",
                f"{int(count):,}",
                f"{1000 * found['ask']:.0f} ms",
                *(f"{found[name]:.1f} s" for name in ("first", "resume", "report")),
            ]
        )
    return table(["sampler", "trials that ended", "an ask, median",
                  "a worker's first ask", "resume", "report"], rows)  # fmt: skip


BENCHMARK = Benchmark(
    "search_scale", __doc__, run, {"told": told}, arguments,
    resumable=True, grows=("trials", "sampler"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
