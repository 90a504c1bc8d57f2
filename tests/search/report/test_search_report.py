"""What the report says about a search: numbers by hand, and the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.core.atomic_files import write_json
from compress.plan import Plan
from compress.run.compressed_model import write_example_values
from search.plan import SearchOptions, SearchPlan
from search.report import load_report, render
from search.report.charts import extract_curves
from search.report.importance import compute_importances, measure_forest_shares, read_parameters
from search.scheduler.log import ScheduleLog
from search.scheduler.records import TUNE, SizeResult, Step, StepResult
from search.study.directory import Candidate, SearchFolder
from search.study.front import count_epochs, measure_progress, sort_by_end
from tests.compress.report.test_file_selection import FILES, run_with
from tests.compress.report.test_report import Page, latency

OBJECTIVES = ("accuracy", "macs")


def candidate(
    number: int, accuracy: float | None = None, macs: int | None = None, **more: Any
) -> Candidate:
    made = {"state": "complete", "choices": {}, "seed": 1, **more}
    val = {} if accuracy is None else {"accuracy": accuracy}
    return Candidate(f"{number:04d}", val=val, macs=macs, **made)


def history(*qualities: float) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"epoch": epoch, "loss": 1.0, "val_loss": 1.0, "val": {"accuracy": quality}, "seconds": 1.0}
        for epoch, quality in enumerate(qualities, start=1)
    )


def test_hypervolume_by_hand() -> None:
    found = measure_progress(
        [
            candidate(0, 0.5, 100, seconds=2.0),  # scaled (1, 0.5)
            candidate(1, None, 500, state="stopped", seconds=1.0),
            candidate(2, 0.9, 1000, seconds=3.0),  # scaled (0, 1)
            candidate(3, 0.99, 1, state="rejected"),
            candidate(4, 0.9, 1, state="duplicate"),
            candidate(5, 0.5, 10, seconds=4.0),  # scaled (1, 0)
        ],
        OBJECTIVES,
    )
    assert found is not None
    assert found.ids == ("0000", "0001", "0002", "0005")
    assert found.seconds == (2.0, 3.0, 6.0, 10.0)
    # boxes up to (1.1, 1.1): 0.1 x 0.6; + 1.1 x 0.1 - 0.1 x 0.1; + 0.1 x 0.5 below the first
    by_hand = np.array([0.06, 0.06, 0.16, 0.21]) / 1.21
    assert found.shares == pytest.approx(by_hand)
    assert found.last_growth == 4
    # 0.9 - 1.1 x 0.4 and 10^(1 + 1.1 x 2)
    assert found.reference == pytest.approx({"accuracy": 0.46, "macs": 10**3.2})
    assert found.best == pytest.approx({"accuracy": 0.9, "macs": 10})


def test_trials_stand_in_the_order_in_which_they_ended() -> None:
    made = [candidate(0, 0.5, 9, ended=30.0), candidate(1, 0.6, 9, ended=10.0)]
    assert [item.id for item in sort_by_end(made)] == ["0001", "0000"]
    found = measure_progress(made, OBJECTIVES)
    assert found is not None
    # all cost the same: 1.1 of 1.1 there
    assert found.shares == pytest.approx((1.0, 1.0))
    assert found.last_growth == 1


def test_no_hypervolume_without_two_finished() -> None:
    assert measure_progress([], OBJECTIVES) is None
    assert measure_progress([candidate(0, 0.5, 9)], OBJECTIVES) is None
    assert (
        measure_progress(
            [candidate(0, 0.5, 9), candidate(1, None, 9), candidate(2, 0.5)], OBJECTIVES
        )
        is None
    )


def test_epochs_saved_by_hand() -> None:
    made = [
        candidate(0, 0.5, 1, history=history(0.1, 0.2, 0.3, 0.5)),
        candidate(1, 0.5, 1, history=history(0.1), state="stopped"),
        candidate(2, 0.5, 1, history=history(0.1, 0.2), state="stopped"),
        candidate(3, state="failed"),
        candidate(4, state="rejected"),
        candidate(5, 0.5, 1, state="duplicate"),
    ]
    assert count_epochs(made, 4) == (7, 12)


def test_parameters_of_every_kind() -> None:
    made = [
        candidate(0, choices={"width": 8, "kind": "b", "flag": True, "rate": 0.1, "odd": None}),
        candidate(1, choices={"width": 16, "kind": "a", "flag": False, "odd": 3}),
    ]
    found = {item.name: item for item in read_parameters(made)}
    assert list(found) == ["width", "kind", "flag", "rate", "odd"]
    assert found["width"].values.tolist() == [8, 16]
    assert found["kind"].categories == ("a", "b")
    assert found["kind"].values.tolist() == [1, 0]
    assert found["flag"].categories == ("False", "True")
    assert found["odd"].categories == ("3", "None")
    assert found["rate"].asked_mask.tolist() == [True, False]
    assert not found["rate"].is_varying


def synthetic(count: int) -> list[Candidate]:
    """Width decides quality and cost, depth only cost; of the conditional rate a little."""
    random = np.random.default_rng(3)
    made = []
    for number in range(count):
        kind = str(random.choice(["plain", "deep"]))
        choices: dict[str, Any] = {
            "width": int(random.integers(1, 9)),
            "kind": kind,
            "noise": float(random.uniform()),
            "flag": bool(random.integers(2)),
        }
        if kind == "deep":
            choices["rate"] = float(random.uniform())
        macs = choices["width"] * (100 if kind == "deep" else 10)
        accuracy = choices["width"] / 10 + choices.get("rate", 0.5) / 20
        made.append(candidate(number, accuracy, macs, choices=choices))
    return made


def test_what_decides_ranks_first() -> None:
    quality, cost = compute_importances(synthetic(60), OBJECTIVES)
    assert (quality.target, quality.trials, quality.missing) == ("accuracy", 60, "")
    assert quality.explained is not None
    assert quality.explained > 0.8
    assert next(iter(quality.shares)) == "width"
    assert quality.shares["width"].value > 0.7
    for name in ("noise", "flag", "kind"):
        assert abs(quality.shares[name].value) < 0.03, name
    assert 20 < quality.shares["rate"].asked < 40
    # in logarithms kind is a factor of 10, width one of at most 8
    assert list(cost.shares)[:2] == ["kind", "width"]
    # kind is in the data twice, as it were: rate is there or not
    assert abs(cost.shares["rate"].value) < 0.05


def test_shares_are_those_of_the_variance() -> None:
    random = np.random.default_rng(0)
    made = [
        candidate(number, choices={"a": float(a), "b": float(b)})
        for number, (a, b) in enumerate(random.integers(0, 2, (200, 2)))
    ]
    a, b = read_parameters(made)
    # variances of independent parts: 9 to 1, all of it explained
    explained, shares = measure_forest_shares([a, b], 3 * a.values + b.values)
    assert explained == pytest.approx(1.0, abs=0.01)
    assert shares["a"].value == pytest.approx(0.9, abs=0.08)
    assert shares["b"].value == pytest.approx(0.1, abs=0.03)
    # only together: each is needed for all of the variance
    _, shares = measure_forest_shares([a, b], (a.values == b.values) * 1.0)
    assert shares["a"].value == pytest.approx(1.0, abs=0.15)
    assert shares["b"].value == pytest.approx(1.0, abs=0.15)


def test_importance_says_why_there_is_none() -> None:
    few = compute_importances(synthetic(9), OBJECTIVES)
    assert [item.missing[:8] for item in few] == ["too few:", "too few:"]
    # the same choices again are no further trial
    again = [candidate(n + 9, 0.5, 10, choices=item.choices) for n, item in enumerate(synthetic(9))]
    assert compute_importances([*synthetic(9), *again], OBJECTIVES)[0].trials == 9
    alike = [candidate(n, 0.5, 10, choices={"x": n}) for n in range(12)]
    assert compute_importances(alike, OBJECTIVES)[0].missing == "all trials are alike"
    empty = [candidate(0, n / 20, 10) for n in range(12)]
    assert compute_importances(empty, OBJECTIVES)[0].trials == 1
    random = np.random.default_rng(1)
    noise = [
        candidate(n, float(random.uniform()), n + 1, choices={"x": float(random.uniform())})
        for n in range(40)
    ]
    found = compute_importances(noise, OBJECTIVES)[0]
    assert found.explained is not None
    assert found.explained < 0.1
    assert "below 10 % it may be noise" in found.missing
    assert found.shares == {}


def test_costs_are_known_of_untrained_ones_too() -> None:
    made = [candidate(n, state="rejected", macs=10**n, choices={"x": n}) for n in range(12)]
    quality, cost = compute_importances(made, OBJECTIVES)
    assert (quality.trials, cost.trials) == (0, 12)
    assert list(cost.shares) == ["x"]


def test_curves_leave_out_what_is_not_there() -> None:
    holes = ({"epoch": 1, "val": None}, {"epoch": 2}, {"epoch": 3, "val": {"accuracy": 0.5}})
    made = [candidate(0, history=holes), candidate(1), candidate(2, history=({"epoch": 1},))]
    assert extract_curves(made, "accuracy") == {"0000": [(3, 0.5)]}


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    made.claim("search", SearchPlan())
    return made


def write(folder: SearchFolder, candidates: list[Candidate]) -> str:
    for item in candidates:
        folder.write_candidate(item)
    render(folder.path)
    text = (folder.path / "report.html").read_text("utf-8")
    page = Page()
    page.feed(text)
    assert (page.loading, page.open) == ([], [])
    text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    return text


def charts(folder: SearchFolder) -> dict[str, dict[str, Any]]:
    """Returns the charts of the page by title."""
    text = (folder.path / "report.html").read_text("utf-8")
    (data,) = re.findall(r'id="paretune-data">(.*?)</script>', text, re.DOTALL)
    return {item["title"]: item for item in json.loads(data)["charts"]}


@pytest.mark.slow
def test_the_page_of_a_search(folder: SearchFolder) -> None:
    made = [
        candidate(number, item.val["accuracy"], item.macs, choices=item.choices, seconds=2.0,
                  history=history(0.1, 0.3, item.val["accuracy"]))
        for number, item in enumerate(synthetic(14))
    ]  # fmt: skip
    stopped = {"accuracy": 0.2}
    made += [
        Candidate("0014", "stopped", {"width": 3, "kind": "<b>$x$"}, 1, "others were better",
                  macs=30, val=stopped, history=history(0.2)),
        candidate(15, 0.85, 777, choices={"width": 7, "kind": "学$_$", "extra": [1, "two"]}),
        candidate(16, state="failed", choices={"width": None}),
        candidate(17, state="rejected", macs=10**9, choices={"width": 9}),
    ]  # fmt: skip
    text = write(folder, made)
    for expected in (
        "<h2>The search</h2>",
        "43 epochs were trained of the 180 that full training",  # 14 x 3 + 1 of 15 x 12
        "reference point (accuracy ",
        "on a logarithmic scale",
        "Breiman 2001",
    ):
        assert expected in text, expected
    found = charts(folder)
    assert list(found) == [
        "Hypervolume over trials", "Hypervolume over time", "Learning curves",
        "Importance of parameters",
    ]  # fmt: skip
    names = [trace["name"] for trace in found["Learning curves"]["traces"]]
    assert names.count("stopped") == 1
    content = json.loads((folder.path / "report.json").read_text())["search"]
    assert (content["epochs_trained"], content["epochs_full"]) == (43, 180)
    assert len(content["hypervolume"]["share"]) == 17  # the rejected one is no trial
    assert [item["target"] for item in content["importance"]] == ["accuracy", "macs"]
    assert content["importance"][0]["trials"] == 15
    before = (folder.path / "report.html").read_bytes()
    render(folder.path)
    assert (folder.path / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    "made",
    [
        [candidate(0, 0.5, 9)],
        [candidate(0, state="failed"), candidate(1, state="rejected", macs=9)],
        [candidate(0, 0.5, 9, choices={"x": 1}), candidate(1, 0.5, 9, choices={"x": "one"})],
    ],
)
def test_few_candidates(folder: SearchFolder, made: list[Candidate]) -> None:
    text = write(folder, made)
    assert "<h2>The search</h2>" in text
    assert "too few" in text
    assert "No epochs are on record." in text
    assert ("needs two finished candidates" in text) == (made[0].choices == {})


@pytest.mark.slow
def test_three_objectives_and_a_negative_quality(tmp_path: Path) -> None:
    objectives = ("r2", "macs", "latency_ms")
    made = [
        Candidate(f"{n:04d}", "complete", {"x": n, "a_name": "b"[: n % 2]}, 1, macs=10 * n + 1,
                  latency_ms=0.01 * (20 - n), val={"r2": 0.05 * n - 0.2})
        for n in range(14)
    ]  # fmt: skip
    found = measure_progress(made, objectives)
    assert found is not None
    assert list(found.reference) == ["r2", "macs", "latency_ms"]
    assert [item.target for item in compute_importances(made, objectives)] == list(objectives)
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", SearchPlan(search=SearchOptions(objectives=objectives)))
    text = write(folder, made)
    assert "(r2 -0.265, " in text  # -0.2 - 0.1 x 0.65
    assert "latency)" in text


def test_a_search_around_a_model_of_an_earlier_version(folder: SearchFolder) -> None:
    """Its candidates were not trained, and their latencies were estimates: the report says so."""
    stored = json.loads(folder.plan_path.read_text("utf-8"))
    stored["plan"]["search"] |= {
        "space": "around:net.keras", "no_train": True, "objectives": ["accuracy", "latency_ms"],
    }  # fmt: skip
    write_json(folder.plan_path, stored)
    made = [
        candidate(0, 0.5, 9, latency_ms=1.0, estimated=("latency_ms",)),
        candidate(1, 0.6, 90, latency_ms=2.0, estimated=("latency_ms",)),
    ]
    text = write(folder, made)
    assert "Latency, estimated" in text
    assert load_report(folder.path).summarize_trials().startswith("2 candidates evaluated, ")


def test_no_search_no_section(tmp_path: Path, folder: SearchFolder) -> None:
    assert "The search" not in write(folder, [])
    assert "search" not in json.loads((folder.path / "report.json").read_text())
    bare = SearchFolder(tmp_path / "compress")
    bare.claim("compress", Plan())
    assert "The search" not in write(bare, [])


def test_the_page_says_how_many_epochs(folder: SearchFolder) -> None:
    write(folder, [candidate(0, 0.5, 9, history=history(0.1, 0.5), choices={"x": 1})])
    render(folder.path)
    page = (folder.path / "report.html").read_text("utf-8")
    assert "1 on the front; 2 of 12 epochs trained" in page


def test_the_study_is_not_needed(folder: SearchFolder) -> None:
    assert not folder.journal.exists()
    write(folder, synthetic(3))
    assert not folder.journal.exists()


@pytest.mark.parametrize(
    ("ratio", "right", "wins"),
    [
        # m.float32 takes 0.49 to 0.51 ms, m-p80.float32 0.5 / 1.1 ms, which ends below that
        (1.1, 951, "2 of 2"),
        # 0.5 / 1.02 ms ends at 0.50 ms: faster, but not beyond the intervals
        (1.02, 951, "1 of 2"),
        # m-p80.int8 is slower than m.int8; two examples of a thousand do not make it better
        (1.02, 942, "0 of 2"),
    ],
)
def test_the_verdict_says_how_many_pruned_files_win(
    tmp_path: Path, ratio: float, right: int, wins: str
) -> None:
    run = run_with(tmp_path / "run", FILES)
    folder = SearchFolder(run.path)
    folder.write_candidate(candidate(0, 0.5, 9, choices={"x": 1}))
    times = {name: latency(ratio if name == "m-p80.float32" else own) for name, *_, own in FILES}
    write_json(folder.latency, {name: item.to_json() for name, item in times.items()})
    assert "Pruned files" not in str(load_report(folder.path))  # nothing is known by example
    counts = {"m.float32": 960, "m.int8": 940, "m-p80.float32": 955, "m-p80.int8": right}
    for name, count in counts.items():
        write_example_values(folder, name, "val", (np.arange(1000) < count).astype(float))
    line = (
        "Pruned files that no unpruned file of this run matches in validation accuracy and "
        f"latency, beyond noise: {wins}"
    )
    assert line in " ".join(str(load_report(folder.path)).split())
    render(folder.path)
    assert line in " ".join((folder.path / "report.html").read_text("utf-8").split())


@pytest.mark.parametrize(
    ("share", "line"),
    [
        (0.2, "Pruned files on the front: none"),
        (1.0, "Pruned files: none was fine-tuned within the budget"),
    ],
)
def test_a_scheduled_run_without_a_pruned_file_says_so(
    tmp_path: Path, share: float, line: str
) -> None:
    folder = SearchFolder(run_with(tmp_path / "run", FILES[:2]).path)
    folder.write_candidate(candidate(0, 0.5, 9, choices={"x": 1}))
    step = Step(0, TUNE, "0000", share)
    log = ScheduleLog(folder.path)
    log.write("begun", step.to_json())
    size = SizeResult(share, 0.9, 9e4)
    result = StepResult("0000", 1.0, (size,), 1)
    log.write("ended", {"number": 0, "at": 2.0, "gain": 0.0, **result.to_json()})
    assert line in str(load_report(folder.path)).splitlines()


@pytest.mark.parametrize(("right", "wins"), [(955, "0 of 1"), (900, "1 of 1")])
def test_a_model_that_was_only_trained_further_is_a_rival_of_pruned_ones(
    tmp_path: Path, right: int, wins: str
) -> None:
    """m-tuned.int8 is the fastest file; without 55 of its right answers it is worse."""
    files = [*FILES[:3], ("m-tuned.int8", 0.955, 0.930, 5000, 3.0)]
    folder = SearchFolder(run_with(tmp_path / "run", files).path)
    folder.write_candidate(candidate(0, 0.5, 9, choices={"x": 1}))
    counts = {"m.float32": 960, "m.int8": 900, "m-p80.float32": 955, "m-tuned.int8": right}
    for name, count in counts.items():
        write_example_values(folder, name, "val", (np.arange(1000) < count).astype(float))
    report = render(folder.path)
    assert f"beyond noise: {wins}" in " ".join(str(report).split())
    assert "fine-tuned int8" in (folder.path / "report.html").read_text("utf-8")
