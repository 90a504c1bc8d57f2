"""Parts that are split off: by chance, by groups, by time, and copies together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compress
from compress.core.errors import InputError
from compress.data import DataOptions, Dataset, load_data
from compress.plan import Plan
from compress.plan.nesting import from_flat, to_nested
from compress.run.directory import RunFolder
from compress.run.held_out import check_held_out
from compress.run.origin import write_data_record, write_examples

RANDOM = np.random.default_rng(0)
ROWS = 600
X = RANDOM.normal(size=(ROWS, 3)).astype(np.float32)
X[:, 0] = np.arange(ROWS)  # says which row it is
PERSON = RANDOM.integers(0, 40, ROWS)
Y = (PERSON + RANDOM.integers(0, 2, ROWS)) % 3
DAY = RANDOM.permutation(ROWS) // 2


def places(data: Dataset) -> dict[str, Any]:
    return {part: data.split(part).x[:, 0].astype(int) for part in ("train", "val", "test")}


def check_groups(data: Dataset, groups: Any = PERSON) -> None:
    """No group is in two parts, and parts are about as large as asked for."""
    rows = places(data)
    found = {part: set(groups[index]) for part, index in rows.items()}
    assert not found["train"] & found["val"]
    assert not found["train"] & found["test"]
    assert not found["val"] & found["test"]
    assert sum(map(len, rows.values())) == ROWS
    assert 0.12 <= len(rows["test"]) / ROWS <= 0.28
    assert 0.08 <= len(rows["val"]) / ROWS <= 0.2


def check_times(data: Dataset) -> None:
    rows = places(data)
    assert DAY[rows["train"]].max() < DAY[rows["val"]].min()
    assert DAY[rows["val"]].max() < DAY[rows["test"]].min()
    # a fifth of 600, and 15 % of the rest; no day is in two parts
    assert {part: len(index) for part, index in rows.items()} == {
        "train": 408, "val": 72, "test": 120,
    }  # fmt: skip


def test_splits_of_before_are_what_they_were() -> None:
    """Of data without copies nothing changes: runs of before go on."""
    assert load_data("digits").fingerprint() == "0998c6abd04d598e"
    rows = np.random.default_rng(5).normal(size=(200, 4)).astype(np.float32)
    data = compress.as_dataset((rows, np.arange(200) % 3), testing=True, seed=3)
    assert data.fingerprint() == "8179674946d23b3d"


def test_groups_of_arrays_stay_together() -> None:
    for seed in range(3):
        data = compress.as_dataset((X, Y), groups=PERSON, testing=True, seed=seed)
        check_groups(data)
        for part in ("train", "val", "test"):  # classes are about as frequent everywhere
            assert (
                np.abs(np.bincount(data.split(part).y) / len(data.split(part)) - 1 / 3).max() < 0.1
            )
    one, two = (compress.as_dataset((X, Y), groups=PERSON, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one.val.x, two.val.x)
    again = compress.as_dataset((X, Y), groups=PERSON, seed=0)
    assert again.fingerprint() == one.fingerprint()
    numbers = Y[:, None].astype(np.float32) + X[:, 1:2]
    check_groups(compress.as_dataset((X, numbers), groups=PERSON, testing=True))
    names = np.array([f"p{person}" for person in PERSON], object)
    check_groups(compress.as_dataset((X, Y), groups=names, testing=True))
    check_groups(compress.as_dataset((X, Y), groups=list(PERSON), testing=True))


def test_many_groups_stay_together() -> None:
    pairs = RANDOM.permutation(2400) // 2
    rows = np.arange(2400, dtype=np.float32)[:, None].repeat(2, 1)
    data = compress.as_dataset((rows, np.arange(2400) % 2), groups=pairs, testing=True)
    found = [set(pairs[data.split(part).x[:, 0].astype(int)]) for part in ("train", "val", "test")]
    assert [len(groups) for groups in found] == [816, 144, 240]
    assert len(set.union(*found)) == 1200


def test_parts_of_arrays_are_split_by_time() -> None:
    check_times(compress.as_dataset((X, Y), time=DAY, testing=True))
    dates = np.datetime64("2024-01-31") + DAY
    check_times(compress.as_dataset((X, Y), time=dates, testing=True))
    check_times(compress.as_dataset((X, Y), time=dates.astype(str), testing=True))


def test_groups_of_parts_that_are_handed_over() -> None:
    def part(chosen: Any) -> Any:
        return X[chosen], Y[chosen]

    train, test = PERSON < 30, PERSON >= 30
    groups = {"train": PERSON[train], "test": PERSON[test]}
    data = compress.as_dataset(part(train), test=part(test), groups=groups)
    rows = places(data)
    assert not set(PERSON[rows["train"]]) & set(PERSON[rows["val"]])
    shared = PERSON % 2 == 0
    other = {"train": PERSON[shared], "test": PERSON[~shared] - 1}
    message = (
        r"Groups of 'arrays' must be in one part each\. Received: .* both the training and the test"
    )
    with pytest.raises(InputError, match=message):
        compress.as_dataset(part(shared), test=part(~shared), groups=other)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"groups": PERSON, "time": DAY}, "groups must be left out beside time"),
        ({"groups": PERSON[:-1]}, r"groups of 'arrays' must be one value an example.*\(599,\)"),
        ({"groups": np.zeros(ROWS)}, "Groups of 'arrays' must be two at least"),
        ({"time": np.zeros(ROWS)}, "Times of 'arrays' must differ"),
        ({"time": ["May"] * ROWS}, "times of 'arrays' must be numbers, or dates in ISO 8601"),
        ({"groups": [None, *PERSON[1:]]}, "groups of 'arrays' must have a value for every example"),
        ({"time": np.where(DAY == 3, np.nan, DAY)}, "Received: 2 missing in the train part"),
        ({"groups": {"training": PERSON}}, "groups must be an array, or arrays by part: train"),
        ({"group_column": "person"}, r"group_column goes with tables .* Give .* groups="),
    ],
)
def test_refusals_of_arrays(how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compress.as_dataset((X, Y), testing=True, **how)


def test_refusals_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"groups goes with arrays .* group_column="):
        compress.as_dataset("digits", groups=PERSON)
    with pytest.raises(
        InputError, match=r"group_column goes with tables and .npz files .*'digits'"
    ):
        load_data("digits", group_column="person")
    with pytest.raises(InputError, match="group_column must be left out beside time_column"):
        DataOptions("d.csv", group_column="a", time_column="b")
    with pytest.raises(InputError, match="groups goes with arrays and streams.*of a Dataset"):
        compress.as_dataset(load_data("digits"), groups=PERSON)
    path = tmp_path / "d.npz"
    np.savez(path, x_train=X, y_train=Y, person_train=PERSON)
    with pytest.raises(InputError, match=r"group_column must name an array .* Received: 'site'"):
        load_data(str(path), group_column="site")


def test_arrays_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x_train=X, y_train=Y, person_train=PERSON, day=DAY)
    check_groups(load_data(str(path), group_column="person"))
    check_times(load_data(str(path), time_column="day"))
    test = np.isin(PERSON, [1, 2, 3])
    np.savez(
        path, x_train=X[~test], y_train=Y[~test], person_train=PERSON[~test],
        x_test=X[test], y_test=Y[test], person_test=PERSON[test],
    )  # fmt: skip
    rows = places(load_data(str(path), group_column="person"))
    assert set(rows["test"]) == set(np.flatnonzero(test))
    assert not set(PERSON[rows["train"]]) & set(PERSON[rows["val"]])
    np.savez(
        path, x_train=X[~test], y_train=Y[~test], person_train=PERSON[~test],
        x_test=X[test], y_test=Y[test], person_test=np.full(int(test.sum()), 5),
    )  # fmt: skip
    with pytest.raises(InputError, match="Groups of .* must be in one part each.*'5' among them"):
        load_data(str(path), group_column="person")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_of_a_table(kind: str, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    days = pd.Timestamp("2024-01-31") + pd.to_timedelta(DAY, unit="D")
    frame = pd.DataFrame({
        "row": X[:, 0], "a": X[:, 1], "label": Y, "day": days,
        "person": [f"p{person}" for person in PERSON],
    })  # fmt: skip
    path = tmp_path / f"d.{kind}"

    def write(columns: Any) -> str:
        columns.to_csv(path, index=False) if kind == "csv" else columns.to_parquet(path)
        return str(path)

    data = load_data(write(frame.drop(columns="day")), group_column="person")
    check_groups(data)
    assert data.input_shape == (2,)
    assert "no column 'person' of one value is in two parts" in data.notes
    data = load_data(write(frame.drop(columns="person")), time_column="day")
    check_times(data)
    assert data.input_shape == (2,)
    numbers = frame.drop(columns="person").assign(day=DAY)
    check_times(load_data(write(numbers), time_column="day"))
    # parts of the table's own must keep groups apart
    frame = frame.drop(columns="day").assign(split=np.where(PERSON < 30, "train", "test"))
    rows = places(load_data(write(frame), group_column="person"))
    assert set(PERSON[rows["test"]]) == set(range(30, 40))
    with pytest.raises(InputError, match="Groups of .* must be in one part each"):
        load_data(
            write(frame.assign(split=np.where(np.arange(ROWS) < 300, "train", "test"))),
            group_column="person",
        )
    with pytest.raises(InputError, match="group_column must name a column .* no label"):
        load_data(write(frame), group_column="label")
    with pytest.raises(InputError, match="time_column must name a column"):
        load_data(write(frame), time_column="when")
    holes = frame.assign(person=frame["person"].where(PERSON != 7))
    with pytest.raises(InputError, match="must have a value in every row.*'person'"):
        load_data(write(holes), group_column="person")


def test_copies_are_kept_in_one_part() -> None:
    """A tenth of the rows are copies: none of them is in two parts, and the notes say so."""
    rows = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    rows[900:] = rows[:100]
    data = compress.as_dataset((rows, np.arange(1000) % 2), testing=True)
    assert (
        "200 of 1,000 examples have a copy among them (duplicates): all copies of one are in one "
        "part of those that are split off"
    ) in data.notes
    keys = data.keys
    assert not np.intersect1d(keys["train"], keys["test"]).size
    assert not np.intersect1d(keys["train"], keys["val"]).size
    assert not np.intersect1d(keys["val"], keys["test"]).size
    assert 0.15 < len(data.test) / 1000 < 0.25
    # rows of few values are equal by chance: they are split as any others
    few = np.random.default_rng(0).integers(0, 2, (1000, 6)).astype(np.float32)
    data = compress.as_dataset((few, np.arange(1000) % 2), testing=True)
    assert len(data.test) == 200
    assert np.isin(data.keys["test"], data.keys["train"]).all()


def test_columns_are_options_of_plans_and_runs_say_them(tmp_path: Path) -> None:
    """What a refused model's run was split by is among the options that the message names."""
    plan = from_flat(Plan, {"data": "t.csv", "group_column": "person"})
    assert to_nested(plan)["data"]["group_column"] == "person"
    folder = RunFolder(tmp_path / "run")
    folder.claim("compress", plan)
    path = tmp_path / "d.npz"
    np.savez(path, x_train=X, y_train=Y, person_train=PERSON)
    data = load_data(str(path), group_column="person")
    write_data_record(folder, data)
    write_examples(folder, data)
    model = folder.models / "m.keras"
    model.parent.mkdir(exist_ok=True)
    model.write_text("model")
    with pytest.raises(InputError, match="--test-fraction 0.2 --group-column person"):
        check_held_out(model, load_data(str(path), seed=1), "Model 'm'")
