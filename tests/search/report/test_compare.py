"""Runs compared: verdicts against arithmetic by hand."""

from __future__ import annotations

import math
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.core.statistics import compare_examples, compare_shares
from compress.report.live.charts import COST, QUALITY, Axis
from compress.run.compressed_model import write_example_values
from search.report.compare import load_runs, write_comparison
from search.report.front_comparison import CostRange, compare_fronts
from search.study.directory import SearchFolder
from tests.compress.report.test_report import folder  # noqa: F401
from tests.search.test_run import paretune

GOOD = Axis("accuracy", "Accuracy", QUALITY, "")
MACS = Axis("macs", "MACs", COST, "")


def rows(*points: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    return [{"macs": cost, "accuracy": quality, "id": f"{cost}"} for cost, quality in points]


def shares(a: Any, b: Any, count_a: int, count_b: int) -> Any:
    """Compares points as shares of so many examples."""
    values = [{row["id"]: row["accuracy"] for row in part} for part in (a, b)]
    return lambda one, other, pairs: compare_shares(
        values[0][one], count_a, values[1][other], count_b, comparisons=pairs
    )


def test_which_run_is_better_where() -> None:
    # a: 70 % at 10, 80 % at 100; b: 75 % at 20, 79.9 % at 100, 60 % at 50 (beaten)
    a = rows((10, 0.70), (100, 0.80), (None, 0.99))
    b = rows((20, 0.75), (100, 0.799), (50, 0.60))
    found = compare_fronts((a, b), GOOD, MACS, shares(a, b, 1000, 1000))
    assert found is not None
    # from 10 a is alone; from 20 b is 5 points better, where two pairs make z = 2.24 and the
    # error is 2 points; from 100 the difference of a tenth of a point is less than that
    error = math.sqrt(0.7 * 0.3 / 1000 + 0.75 * 0.25 / 1000)
    assert 2.24 * error < 0.05
    assert found.cost_ranges == (
        CostRange(10.0, 20.0, 0, math.inf),
        CostRange(20.0, 100.0, 1, pytest.approx(0.05)),  # type: ignore[arg-type]
        CostRange(100.0, math.inf, None, pytest.approx(0.001)),  # type: ignore[arg-type]
    )
    # without knowing the error only equals are a tie
    exact = compare_fronts((a, b), GOOD, MACS, None)
    assert exact is not None
    assert [part.better_run for part in exact.cost_ranges] == [0, 1, 0]


def test_where_one_is_alone_is_told_apart_from_where_it_is_better() -> None:
    a = rows((100, 0.8), (1000, 0.9))
    b = rows((500, 0.7), (900, 0.75))
    found = compare_fronts((a, b), GOOD, MACS, None)
    assert found is not None
    assert [(part.low, part.high, part.better_run) for part in found.cost_ranges] == [
        (100, 500, 0), (500, math.inf, 0),
    ]  # fmt: skip
    assert found.cost_ranges[0].max_gap == math.inf
    # 10 points at 500, 5 at 900, 15 at 1,000
    assert found.cost_ranges[1].max_gap == pytest.approx(0.15)


def test_each_run_has_its_own_number_of_examples() -> None:
    # 80 of 100: 81 / 102 = .794, of 10,000 next to nothing changes; 1.96 times the error
    error = 1.96 * math.sqrt(0.794 * 0.206 / 102 + 0.72 * 0.28 / 10_002)
    assert 0.0785 < error < 0.0792
    one, near, far = rows((1, 0.80)), rows((1, 0.72)), rows((1, 0.71))
    tie = compare_fronts((one, near), GOOD, MACS, shares(one, near, 100, 10_000))
    told = compare_fronts((one, far), GOOD, MACS, shares(one, far, 100, 10_000))
    assert tie is not None
    assert told is not None
    assert (tie.cost_ranges[0].better_run, told.cost_ranges[0].better_run) == (None, 0)


def test_hypervolume_by_hand() -> None:
    # logarithms of costs 1 and 2, qualities 0.5 to 0.9: scaled to [0, 1], the reference at 1.1
    found = compare_fronts((rows((10, 0.5), (100, 0.9)), rows((10, 0.7))), GOOD, MACS, None)
    assert found is not None
    # a: (0, 1) and (1, 0): 1.1 x 0.1 + 0.1 x 1.0; b: (0, 0.5): 1.1 x 0.6
    assert found.shares[0] == pytest.approx((1.1 * 0.1 + 0.1 * 1.0) / 1.21)
    assert found.shares[1] == pytest.approx(1.1 * 0.6 / 1.21)


def test_nothing_to_compare() -> None:
    assert compare_fronts((rows((None, 0.5)), rows((1, 0.5))), GOOD, MACS, None) is None


POINTS = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 20).map(lambda value: value / 20)),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(POINTS, POINTS)
def test_stretches_say_what_each_cost_says(
    a: list[tuple[int, float]], b: list[tuple[int, float]]
) -> None:
    found = compare_fronts((rows(*a), rows(*b)), GOOD, MACS, None)
    assert found is not None

    def best(points: list[tuple[int, float]], cost: float) -> float:
        return max((quality for own, quality in points if own <= cost), default=-math.inf)

    for cost in range(min(c for c, _ in (*a, *b)), 60):
        (part,) = [item for item in found.cost_ranges if item.low <= cost < item.high]
        first, second = best(a, cost), best(b, cost)
        assert part.better_run == (None if first == second else 0 if first > second else 1)
        if math.isfinite(first) and math.isfinite(second):
            assert part.max_gap >= abs(first - second) - 1e-12
    # another order is the same seen from the other side
    turned = compare_fronts((rows(*b), rows(*a)), GOOD, MACS, None)
    assert turned is not None
    np.testing.assert_allclose(found.shares, turned.shares[::-1])


def compare(runs: list[Path], out: Path) -> str:
    """Returns the page of a comparison."""
    return unescape(write_comparison(load_runs(runs), out / "c.html").read_text())


def test_a_page_of_two_runs(folder: SearchFolder, tmp_path: Path) -> None:  # noqa: F811
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    path = other / "compressed" / "0001.json"
    content = read_json(path)
    for item in content["artifacts"]:
        item["size_bytes"] = item["size_bytes"] // 2
    write_json(path, content)
    page = compare([folder.path, other], tmp_path)
    assert "2 runs compared" in page
    bare = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "Exported files: run and other" in bare
    assert "other alone reaches so low" in bare
    # the same qualities for half of the bytes
    (line,) = re.findall(r" Size (.*?) Latency ", " ".join(bare.partition("Better")[2].split()))
    assert "run, by" not in line
    assert "different examples" not in bare


def test_runs_of_other_data_or_machines_are_told(
    folder: SearchFolder,  # noqa: F811
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    plan = read_json(other / "plan.json")
    plan["plan"]["seed"] = 7
    write_json(other / "plan.json", {**plan, "facts": {"data": "another"}})
    timed = read_json(other / "latency.json")
    write_json(
        other / "latency.json", {key: {**item, "device": "B"} for key, item in timed.items()}
    )
    page = compare([folder.path, other], tmp_path)
    assert "The runs had different examples" in page
    # options that differ are said; a share of a common box would mean nothing
    assert "<li>seed 0 / 7</li>" in page
    assert "hypervolume" not in page
    assert "Latency is not compared: it was measured by LiteRT 1.0 on A <CPU>, 1 threads" in page
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    assert ">Latency<" not in bare


def test_what_cannot_be_compared(folder: SearchFolder, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(InputError, match="At least 2 runs must be compared. Received: 1"):
        write_comparison(load_runs([folder.path]), tmp_path / "c.html")
    with pytest.raises(InputError, match="Runs must be different folders"):
        write_comparison(load_runs([folder.path, folder.path]), tmp_path / "c.html")
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    with pytest.raises(InputError, match="out must be a file"):
        write_comparison(load_runs([folder.path, other]), tmp_path)
    data = read_json(other / "data.json")
    write_json(other / "data.json", {**data, "task": "binary"})
    with pytest.raises(InputError, match="Runs must be of one task"):
        write_comparison(load_runs([folder.path, other]), tmp_path / "c.html")
    assert not (tmp_path / "c.html").exists()


@pytest.mark.slow
def test_the_command(folder: SearchFolder, tmp_path: Path) -> None:  # noqa: F811
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    done = paretune("report", folder.path, other, "--out", "both.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["2 runs compared", "Report  both.html"]
    assert [line.split()[0] for line in lines[5:7]] == ["run", "other"]
    assert (tmp_path / "both.html").is_file()
    one = paretune("report", folder.path, "--out", "x.html", cwd=tmp_path)
    assert one.returncode == 2
    assert "--out must go with several runs" in one.stderr
    light = paretune("report", folder.path, "--light", cwd=tmp_path)
    assert light.returncode == 0
    assert "<script" not in (folder.path / "report.html").read_text()


def put_values(run: Path, file: str, values: Any) -> None:
    write_example_values(SearchFolder(run), file, "test", np.asarray(values, np.float64))


def test_files_of_the_same_data_are_compared_example_by_example(
    folder: SearchFolder,  # noqa: F811
    tmp_path: Path,
) -> None:
    plan = read_json(folder.plan_path)
    write_json(folder.plan_path, {**plan, "facts": {"data": "same"}})
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    files = [item["id"] for item in read_json(folder.compressed / "0001.json")["artifacts"]]
    right = np.arange(400) < 360
    for file in files:
        put_values(folder.path, file, right)
        # the same share, of other examples; then ten more are wrong
        put_values(other, file, right[::-1])
    page = compare([folder.path, other], tmp_path)
    bare = " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    assert "a tie" in bare[bare.index("MACs") :]
    assert "the examples are paired where both runs have the same" in bare
    for file in files:
        put_values(other, file, np.arange(400) < 350)
    page = compare([folder.path, other], tmp_path)
    bare = " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    assert "run, by up to 2.50 pp" in bare


def test_files_of_other_examples_are_compared_as_shares(
    folder: SearchFolder,  # noqa: F811
    tmp_path: Path,
) -> None:
    plan = read_json(folder.plan_path)
    write_json(folder.plan_path, {**plan, "facts": {"data": "one"}})
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    write_json(other / "plan.json", {**plan, "facts": {"data": "another"}})
    path = other / "compressed" / "0001.json"
    content = read_json(path)
    counted = [{**item, "tested": 400} for item in content["artifacts"]]
    write_json(folder.compressed / "0001.json", {**content, "artifacts": counted})

    def compare_lower(drop: float) -> str:
        lower = [
            {**item, "test": {**item["test"], "accuracy": item["test"]["accuracy"] - drop}}
            for item in counted
        ]
        write_json(path, {**content, "artifacts": lower})
        page = compare([folder.path, other], tmp_path)
        bare = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
        return " ".join(bare.split())

    # a tenth of a point is less than the error of a few hundred examples, twenty points are not
    assert "run, by up to" not in compare_lower(0.001)
    assert "run, by up to 20.00 pp" in compare_lower(0.2)


def test_equal_runs_differ_in_at_most_seven_of_a_hundred_draws() -> None:
    """Files whose models are equally good, on the front by validation, compared by test data."""
    random, false = np.random.default_rng(0), 0
    for _ in range(1000):
        chance = np.clip(random.normal(0.9, 0.1, 400), 0, 1)
        runs, known = [], []
        for _ in range(2):
            values = random.random((6, 400)) < chance
            known.append({str(place): item.astype(float) for place, item in enumerate(values)})
            validation = random.binomial(400, 0.9, 6) / 400
            runs.append(
                [
                    {"macs": 2.0**place, "accuracy": float(share), "id": str(place)}
                    for place, share in enumerate(validation)
                ]
            )
        found = compare_fronts(
            (runs[0], runs[1]), GOOD, MACS,
            lambda one, other, pairs, known=known: compare_examples(  # type: ignore[misc]
                known[0][one], known[1][other], comparisons=pairs
            ),
        )  # fmt: skip
        assert found is not None
        false += any(
            part.better_run is not None and math.isfinite(part.max_gap)
            for part in found.cost_ranges
        )
    assert false <= 70
