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
from compress.report.live.points import COST, QUALITY, Axis
from search.folder.directory import SearchFolder
from search.report.compare import compare_runs
from search.report.compare.duel import Stretch, duel
from tests.compress.report.test_report import folder  # noqa: F401
from tests.search.test_run import paretune

GOOD = Axis("accuracy", "Accuracy", QUALITY, "")
MACS = Axis("macs", "MACs", COST, "")


def rows(*points: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    return [{"macs": cost, "accuracy": quality} for cost, quality in points]


def test_which_run_is_better_where() -> None:
    # a: 70 % at 10, 80 % at 100; b: 75 % at 20, 79.9 % at 100, 60 % at 50 (beaten)
    a = rows((10, 0.70), (100, 0.80), (None, 0.99))
    b = rows((20, 0.75), (100, 0.799), (50, 0.60))
    found = duel((a, b), GOOD, MACS, (1000, 1000))
    assert found is not None
    assert found.fronts == (((10, 0.70), (100, 0.80)), ((20, 0.75), (100, 0.799)))
    # from 10 a is alone; from 20 b is 5 points better, where the error is 2 points; from 100 the
    # difference of a tenth of a point is less than the error of 1.8
    error = math.sqrt(0.7 * 0.3 / 1000 + 0.75 * 0.25 / 1000)
    assert error < 0.05
    assert found.stretches == (
        Stretch(10.0, 20.0, 0, math.inf),
        Stretch(20.0, 100.0, 1, pytest.approx(0.05)),  # type: ignore[arg-type]
        Stretch(100.0, math.inf, None, pytest.approx(0.001)),  # type: ignore[arg-type]
    )
    # without knowing the error only equals are a tie
    exact = duel((a, b), GOOD, MACS, None)
    assert exact is not None
    assert [part.better for part in exact.stretches] == [0, 1, 0]


def test_where_one_is_alone_is_told_apart_from_where_it_is_better() -> None:
    a = rows((100, 0.8), (1000, 0.9))
    b = rows((500, 0.7), (900, 0.75))
    found = duel((a, b), GOOD, MACS, None)
    assert found is not None
    assert [(part.low, part.high, part.better) for part in found.stretches] == [
        (100, 500, 0), (500, math.inf, 0),
    ]  # fmt: skip
    assert found.stretches[0].most == math.inf
    # 10 points at 500, 5 at 900, 15 at 1,000
    assert found.stretches[1].most == pytest.approx(0.15)


def test_each_run_has_its_own_number_of_examples() -> None:
    sizes = (100, 10_000)
    error = math.sqrt(0.8 * 0.2 / 100 + 0.76 * 0.24 / 10_000)
    assert 0.04 < error < 0.041
    tie = duel((rows((1, 0.80)), rows((1, 0.76))), GOOD, MACS, sizes)
    told = duel((rows((1, 0.80)), rows((1, 0.755))), GOOD, MACS, sizes)
    assert tie is not None
    assert told is not None
    assert (tie.stretches[0].better, told.stretches[0].better) == (None, 0)


def test_hypervolume_by_hand() -> None:
    # logarithms of costs 1 and 2, qualities 0.5 to 0.9: scaled to [0, 1], the reference at 1.1
    found = duel((rows((10, 0.5), (100, 0.9)), rows((10, 0.7))), GOOD, MACS, None)
    assert found is not None
    # a: (0, 1) and (1, 0): 1.1 x 0.1 + 0.1 x 1.0; b: (0, 0.5): 1.1 x 0.6
    assert found.shares[0] == pytest.approx((1.1 * 0.1 + 0.1 * 1.0) / 1.21)
    assert found.shares[1] == pytest.approx(1.1 * 0.6 / 1.21)


def test_nothing_to_compare() -> None:
    assert duel((rows((None, 0.5)), rows((1, 0.5))), GOOD, MACS, None) is None


POINTS = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 20).map(lambda value: value / 20)),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(POINTS, POINTS)
def test_stretches_say_what_each_cost_says(
    a: list[tuple[int, float]], b: list[tuple[int, float]]
) -> None:
    found = duel((rows(*a), rows(*b)), GOOD, MACS, None)
    assert found is not None

    def best(points: list[tuple[int, float]], cost: float) -> float:
        return max((quality for own, quality in points if own <= cost), default=-math.inf)

    for cost in range(min(c for c, _ in (*a, *b)), 60):
        (part,) = [item for item in found.stretches if item.low <= cost < item.high]
        first, second = best(a, cost), best(b, cost)
        assert part.better == (None if first == second else 0 if first > second else 1)
        if math.isfinite(first) and math.isfinite(second):
            assert part.most >= abs(first - second) - 1e-12
    # another order is the same seen from the other side
    turned = duel((rows(*b), rows(*a)), GOOD, MACS, None)
    assert turned is not None
    np.testing.assert_allclose(found.shares, turned.shares[::-1])


def test_a_page_of_two_runs(folder: SearchFolder, tmp_path: Path) -> None:  # noqa: F811
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    path = other / "compressed" / "0001.json"
    content = read_json(path)
    for item in content["artifacts"]:
        item["gzip_bytes"] = item["gzip_bytes"] // 2
    write_json(path, content)
    page = unescape(compare_runs([folder.path, other], tmp_path / "c.html").read_text())
    assert "2 runs compared" in page
    bare = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "Exported files: run and other" in bare
    assert "other alone reaches so low" in bare
    # the same qualities for half of the bytes
    (line,) = re.findall(r"Gzipped(.*?)Latency", " ".join(bare.split()))
    assert "run, by" not in line
    assert "different examples" not in bare


def test_runs_of_other_data_or_machines_are_told(
    folder: SearchFolder,  # noqa: F811
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    plan = read_json(other / "plan.json")
    write_json(other / "plan.json", {**plan, "facts": {"data": "another"}})
    timed = read_json(other / "latency.json")
    write_json(
        other / "latency.json", {key: {**item, "device": "B"} for key, item in timed.items()}
    )
    page = unescape(compare_runs([folder.path, other], tmp_path / "c.html").read_text())
    assert "The runs had different examples" in page
    assert "Latency is not compared: it was measured by LiteRT 1.0 on A <CPU>, 1 threads" in page
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    assert ">Latency<" not in bare


def test_what_cannot_be_compared(folder: SearchFolder, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(InputError, match="At least 2 runs must be compared. Received: 1"):
        compare_runs([folder.path], tmp_path / "c.html")
    with pytest.raises(InputError, match="out must be a file"):
        compare_runs([folder.path, folder.path], tmp_path)
    with pytest.raises(InputError, match="Runs must be different folders"):
        compare_runs([folder.path, folder.path], tmp_path / "c.html")
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    data = read_json(other / "data.json")
    write_json(other / "data.json", {**data, "task": "binary"})
    with pytest.raises(InputError, match="Runs must be of one task"):
        compare_runs([folder.path, other], tmp_path / "c.html")
    assert not (tmp_path / "c.html").exists()


def test_the_command(folder: SearchFolder, tmp_path: Path) -> None:  # noqa: F811
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    done = paretune("report", folder.path, other, "--out", "both.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "report: both.html"
    assert (tmp_path / "both.html").is_file()
    one = paretune("report", folder.path, "--out", "x.html", cwd=tmp_path)
    assert one.returncode == 2
    assert "--out must go with several runs" in one.stderr
    light = paretune("report", folder.path, "--light", cwd=tmp_path)
    assert light.returncode == 0
    assert "<script" not in (folder.path / "report.html").read_text()
