"""Which run a model comes from, what it was trained on, and what may judge it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split, load_data
from compress.plan.nesting import from_flat, to_nested
from compress.report import load_report as compress_report
from compress.run.compressed_model import CompressedModel
from compress.run.held_out import check_choices, check_held_out, check_scaling
from compress.run.origin import (
    collect_trained_keys,
    find_origin,
    read_training,
    write_data_record,
    write_examples,
)
from search.plan import SearchPlan
from search.report import load_report
from search.study.directory import FinalTraining, SearchFolder


def run_of(path: Path, data: Dataset, *, old: bool = False, **flat: Any) -> SearchFolder:
    """A run's folder with one candidate, its final training and its compressed model."""
    plan = from_flat(SearchPlan, flat)
    folder = SearchFolder(path)
    folder.claim("run", plan)
    write_data_record(folder, data)
    if not old:
        write_examples(folder, data)
    (folder.candidates / "0003.json").write_text("{}")
    for file in (folder.get_model_path("0003"), folder.get_model_path("0003-p80"),
                 folder.final / "0003.keras", folder.final / "0003-final0.keras"):  # fmt: skip
        file.write_text("model")
    return folder


def add_validation_training(folder: SearchFolder) -> None:
    """Makes a run one of version 0.1 whose final trainings used the validation part."""
    stored = read_json(folder.plan_path)
    stored["plan"]["final"]["on_validation"] = True
    write_json(folder.plan_path, stored)


@pytest.fixture(scope="module")
def reseeded() -> Dataset:
    return load_data("digits", seed=1)


def common(one: Any, two: Any) -> int:
    """Counts equal examples by their bytes."""
    return len({row.tobytes() for row in one} & {row.tobytes() for row in two})


def test_models_of_a_run_are_known(digits: Dataset, tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", digits)
    link = tmp_path / "mine.keras"
    link.symlink_to(folder.get_model_path("0003"))
    for file in (*folder.candidates.glob("*.keras"), *folder.final.glob("*.keras"), link):
        origin = find_origin(file)
        assert origin is not None
        assert origin.folder.path == folder.path.resolve()
        assert origin.preprocess == digits.preprocess
        assert origin.class_names == digits.class_names
    stranger = tmp_path / "elsewhere" / "0003.keras"
    stranger.parent.mkdir()
    stranger.write_text("model")
    assert find_origin(stranger) is None
    assert find_origin(folder.exports / "0003.keras") is None
    (note,) = check_held_out(stranger, digits, "Model 'x'")
    assert note.startswith(
        "what model 'x' was trained on is not known (paretune did not train it): figures"
    )


@pytest.mark.parametrize("name", ["candidates/0003", "final/0003", "final/0003-final0",
                                  "candidates/0003-p80"])  # fmt: skip
@pytest.mark.parametrize("old", [False, True])
def test_another_split_of_the_same_data_is_refused(
    name: str, old: bool, digits: Dataset, reseeded: Dataset, tmp_path: Path
) -> None:
    folder = run_of(tmp_path / "run", digits, old=old, test_fraction=0.2)
    file = folder.path / f"{name}.keras"
    assert check_held_out(file, digits, "Model 'm'") == ()
    # the scaling makes no other examples of them
    unit = load_data("digits", normalize="unit")
    assert check_held_out(file, unit, "Model 'm'") == ()
    learnt = common(reseeded.test.x, digits.train.x)
    received = f"{learnt} of the 360 test examples" if not old else "other parts of 'digits'"
    with pytest.raises(InputError, match=f"Model 'm' must be evaluated on .* {received}") as caught:
        check_held_out(file, reseeded, "Model 'm'")
    assert str(caught.value).endswith(
        "Give that run's --data digits --seed 0 --val-fraction 0.15 --test-fraction 0.2."
    )


def test_the_same_data_under_another_name_and_scale(
    digits: Dataset, reseeded: Dataset, tmp_path: Path
) -> None:
    folder = run_of(tmp_path / "run", digits)
    parts = {
        part: replace(reseeded.split(part), x=(reseeded.split(part).x / 16).astype(np.float32))
        for part in ("train", "val", "test")
    }
    renamed = replace(reseeded, name="my.npz", **parts)
    with pytest.raises(InputError, match=f"{common(reseeded.test.x, digits.train.x)} of the 360"):
        check_held_out(folder.get_model_path("0003"), renamed, "Model 'm'")


def test_other_data_are_no_overlap(digits: Dataset, blobs: Dataset, tmp_path: Path) -> None:
    for old in (False, True):
        folder = run_of(tmp_path / f"run{old}", digits, old=old)
        assert check_held_out(folder.get_model_path("0003"), blobs, "Model 'm'") == ()


def test_only_the_validation_part_was_learnt(digits: Dataset, tmp_path: Path) -> None:
    """Same test part, but validation and training examples have changed places."""
    folder = run_of(tmp_path / "run", digits)
    count = len(digits.val)
    mixed = replace(
        digits, train=replace(digits.val), val=digits.train.take(np.arange(count))
    )  # fmt: skip
    with pytest.raises(InputError, match=f"{count} of the {count} validation examples"):
        check_held_out(folder.get_model_path("0003"), mixed, "Teacher 't'")


def test_a_run_that_trained_on_its_validation_part_is_refused(
    digits: Dataset, tmp_path: Path
) -> None:
    """Version 0.1 could do that; nothing else could evaluate or select its models."""
    for old in (False, True):
        folder = run_of(tmp_path / f"run{old}", digits, old=old, final_epochs=2)
        add_validation_training(folder)
        said = f"{folder.plan_path}': plan.final must be of models that were not trained on the val"
        for name in ("final/0003", "final/0003-final0", "candidates/0003-p80", "candidates/0003"):
            for read in (find_origin, read_training):
                with pytest.raises(InputError, match=f"{said}.* Received: on_validation.* Repeat"):
                    read(folder.path / f"{name}.keras")
        for load in (compress_report, load_report):
            with pytest.raises(InputError, match=said):
                load(folder.path)
        # choices have no weights
        check_choices(folder, digits, "Warm start 'r'")


def test_a_record_that_says_so_is_refused(digits: Dataset, tmp_path: Path) -> None:
    """A final training, or a compressed model whose teacher was such a model."""
    folder = run_of(tmp_path / "run", digits)
    for kind, key in ((FinalTraining, "on_validation"), (CompressedModel, "val_learnt")):
        with pytest.raises(InputError, match=f"not trained on the val.* Received: {key}"):
            kind.from_json({key: True}, "m.json")
    record = FinalTraining("0003", 0, 1, 2, 2, {"accuracy": 0.9}, {"accuracy": 0.9}, 1.0)
    path = folder.final / "0003-final0.json"
    write_json(path, {**record.to_json(), "on_validation": False})
    assert folder.read_finals() == [record]
    write_json(path, {**record.to_json(), "on_validation": True})
    with pytest.raises(InputError, match=r"0003-final0\.json' must be of models"):
        folder.read_finals()


def test_what_was_learnt_is_handed_on(digits: Dataset, reseeded: Dataset, tmp_path: Path) -> None:
    """A compressed model of a model of a run, and one whose teacher came from another."""
    first = run_of(tmp_path / "run", reseeded)
    second = SearchFolder(tmp_path / "compress")
    second.claim("compress", from_flat(SearchPlan, {}))
    write_data_record(second, digits)
    model = first.final / "0003.keras"
    write_examples(second, digits, [model], [])
    file = second.get_model_path("0003-p80")
    file.write_text("model")
    assert len(collect_trained_keys([model])) == len(reseeded.train)
    assert len(collect_trained_keys([tmp_path / "none.keras"])) == 0
    # the test part of this run was trained on by the model of the other
    received = f"{common(digits.test.x, reseeded.train.x)} of the 360 test examples"
    with pytest.raises(InputError, match=received):
        check_held_out(file, digits, "Model 'm'")
    # so is a validation part that holds what the other model was trained on
    moved = replace(digits, test=replace(reseeded.test), val=replace(reseeded.train))
    with pytest.raises(InputError, match="validation examples that occur once"):
        check_held_out(file, moved, "Model 'm'")
    # teachers have taught the compressed models alone
    third = run_of(tmp_path / "third", digits)
    write_examples(third, digits, [], [model])
    assert check_held_out(third.get_model_path("0003"), digits, "Model 'm'") == ()
    with pytest.raises(InputError, match=received):
        check_held_out(third.get_model_path("0003-p80"), digits, "Model 'm'")


def test_duplicates_are_chance_and_said(digits: Dataset, blobs: Dataset, tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", blobs)
    x = blobs.test.x.copy()
    x[:1] = blobs.train.x[:1]
    # one example of the other run among 60: above 1 %
    other = replace(blobs, train=blobs.train.take(np.arange(1, 240)), test=replace(blobs.test, x=x))
    with pytest.raises(InputError, match="1 of the 60 test examples that occur once in the data"):
        check_held_out(folder.get_model_path("0003"), other, "Model 'm'")
    # among 240 it is below
    more = np.random.default_rng(5).normal(size=(180, 4)).astype(np.float32)
    test = replace(other.test, x=np.concatenate([x, more]), y=np.arange(240) % 3)
    judged = check_held_out(folder.get_model_path("0003"), replace(other, test=test), "Model 'm'")
    assert judged == (
        "1 of the 240 test examples that occur once in the data are among those that model 'm' "
        "was trained on (chance duplicates)",
    )
    # what is twice in the data does not count
    twice = replace(other.test, x=np.concatenate([x, x]), y=np.arange(120) % 3)
    assert (
        check_held_out(folder.get_model_path("0003"), replace(other, test=twice), "Model 'm'") == ()
    )


def table(rows: Any, y: Any, parts: tuple[Any, Any, Any]) -> Dataset:
    """A data set of rows of a table, by their places."""
    train, val, test = (Split(rows[part].astype(np.float32), y[part]) for part in parts)
    return Dataset("table", train, val, test, ("a", "b"), Preprocessing())


def test_natural_duplicates_do_not_hide_a_leak(tmp_path: Path) -> None:
    """30 % of the rows are copies, and the model was trained on 290 of the 700 test rows."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, 8))
    copies = random.choice(2000, 600, replace=False)
    rows[copies] = rows[random.integers(2000, size=600)]
    y, places = np.arange(2000) % 2, random.permutation(2000)
    test, rest = places[:700], places[700:]
    folder = run_of(
        tmp_path / "run", table(rows, y, (np.r_[rest[:800], test[:290]], rest[800:900], rest[900:]))
    )
    fresh = table(rows, y, (rest[:1000], rest[1000:], test))
    once = dict(zip(*np.unique(rows[:, 0], return_counts=True), strict=True))
    single = sum(once[value] == 1 for value in rows[test, 0])
    learned = sum(once[value] == 1 for value in rows[test[:290], 0])
    message = f"{learned} of the {single} test examples that occur once in the data are among"
    with pytest.raises(InputError, match=message):
        check_held_out(folder.get_model_path("0003"), fresh, "Model 'm'")
    with pytest.raises(InputError, match=message):
        check_choices(folder, fresh, "Warm start 'r'")
    # the run's own parts are no leak, however many copies there are
    own = run_of(tmp_path / "own", fresh)
    assert check_held_out(own.get_model_path("0003"), fresh, "Model 'm'") == ()


def test_rows_of_few_values_are_equal_by_chance(tmp_path: Path) -> None:
    """Eight columns of yes and no: another sample holds the same rows, and is another one."""
    random = np.random.default_rng(0)
    rows = (random.random((4000, 8)) < 0.2).astype(float)
    y = np.arange(4000) % 2
    parts = np.split(np.arange(2000), [1200, 1500])
    folder = run_of(tmp_path / "run", table(rows, y, tuple(part + 2000 for part in parts)))
    judged = check_held_out(
        folder.get_model_path("0003"), table(rows, y, tuple(parts)), "Model 'm'"
    )
    assert all("chance duplicates" in note for note in judged)


def test_rows_of_a_table_are_known_under_any_normalize(tmp_path: Path) -> None:
    """Hashes are of the values in the file; a file of scaled values holds other examples."""
    rows = np.random.default_rng(0).normal(100, 20, (400, 5)).astype(np.float32)
    content = np.c_[rows, np.arange(400) % 2]
    raw, scaled = tmp_path / "raw.csv", tmp_path / "scaled.csv"
    np.savetxt(raw, content, "%.9g", ",", header="a,b,c,d,e,label", comments="")
    content[:, :5] = (rows - rows.mean(0)) / rows.std(0)
    np.savetxt(scaled, content, "%.9g", ",", header="a,b,c,d,e,label", comments="")
    learned = load_data(str(raw))
    model = run_of(tmp_path / "run", learned).get_model_path("0003")
    for normalize in ("standardize", "none"):
        again = load_data(str(raw), normalize=normalize)
        assert check_held_out(model, again, "Model 'm'") == ()
        other = load_data(str(raw), seed=1, normalize=normalize)
        count = common(other.test.x, learned.train.x)
        with pytest.raises(InputError, match=f"{count} of the {len(other.test)} test examples"):
            check_held_out(model, other, "Model 'm'")
    stranger = load_data(str(scaled), seed=1)
    assert check_held_out(model, stranger, "Model 'm'") == ()


def test_records_that_kept_rows_of_tables_are_read(blobs: Dataset, tmp_path: Path) -> None:
    """Earlier records have arrays by which rows were searched for in other scales."""
    folder = run_of(tmp_path / "run", blobs)
    with np.load(folder.examples) as stored:
        arrays = dict(stored)
    sketch: dict[str, Any] = {
        "rows": blobs.train.x,
        **dict.fromkeys(("centre", "spread", "low", "high"), np.zeros(4)),
        "keys": np.zeros((2, 240), np.uint64),
    }
    for kind in ("train", "val", "before"):
        arrays |= {f"{kind}/0/{name}": values for name, values in sketch.items()}
    np.savez(folder.examples, **arrays)
    model = folder.get_model_path("0003")
    assert check_held_out(model, blobs, "Model 'm'") == ()
    check_choices(folder, blobs, "Warm start 'r'")
    leaky = replace(blobs, train=blobs.test, test=blobs.train)
    second = run_of(tmp_path / "second", leaky)
    write_examples(second, leaky, [model])
    for file in (model, second.get_model_path("0003")):
        with pytest.raises(InputError, match="240 of the 240 test examples that occur once"):
            check_held_out(file, leaky, "Model 'm'")
    with np.load(second.examples) as stored:
        assert sorted(stored) == ["before", "taught", "train", "val"]


def test_choices_are_tested_on_what_did_not_make_them(
    digits: Dataset, reseeded: Dataset, tmp_path: Path
) -> None:
    for old in (False, True):
        folder = run_of(tmp_path / f"run{old}", digits, old=old)
        check_choices(folder, digits, "Warm start 'r'")
        with pytest.raises(InputError, match="Warm start 'r' must be evaluated on"):
            check_choices(folder, reseeded, "Warm start 'r'")
    # new validation data may be old training data: choices have no weights
    swapped = replace(digits, train=digits.val, val=digits.train)
    check_choices(SearchFolder(tmp_path / "runFalse"), swapped, "Warm start 'r'")
    check_choices(SearchFolder(tmp_path / "none"), reseeded, "Warm start 'r'")


def test_a_model_is_fed_as_in_its_run(digits: Dataset, blobs: Dataset, tmp_path: Path) -> None:
    for old in (False, True):
        folder = run_of(tmp_path / f"run{old}", digits, old=old)
        file = folder.get_model_path("0003")
        assert check_scaling(file, digits, "Model 'm'") == ()
        unit = load_data("digits", normalize="unit")
        with pytest.raises(InputError, match="Model 'm' must be fed in the scaling of its run"):
            check_scaling(file, unit, "Model 'm'")
        (note,) = check_scaling(file, blobs, "Model 'm'")
        assert note.startswith("model 'm' is fed in another scaling than in its run")
    assert check_scaling(tmp_path / "stranger.keras", digits, "Model 'm'") == ()


def test_damaged_records_are_named(digits: Dataset, tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", digits)
    folder.examples.write_bytes(b"torn")
    with pytest.raises(InputError, match=r"examples\.npz' must be an \.npz file"):
        check_held_out(folder.get_model_path("0003"), digits, "Model 'm'")
    np.savez(folder.examples, train=np.arange(3), val=np.arange(3, dtype=np.uint64))
    with pytest.raises(InputError, match=r"record of its examples.* Received: train, val\."):
        check_held_out(folder.get_model_path("0003"), digits, "Model 'm'")
    folder.data.write_text("[1]")
    with pytest.raises(InputError, match="must hold a JSON object"):
        find_origin(folder.get_model_path("0003"))


def test_fingerprints_of_the_first_release_hold(digits: Dataset) -> None:
    """A run of then continues now: the new field of scalings is in no hash unless it is set."""
    assert repr(Preprocessing(0.5)) == "Preprocessing(scale=0.5, mean=(0.0,), std=(1.0,))"
    turned = replace(digits, preprocess=replace(digits.preprocess, bgr=True))
    assert turned.fingerprint() != digits.fingerprint()
    stored = json.loads(json.dumps(turned.preprocess.to_json()))
    assert Preprocessing.from_json(stored) == turned.preprocess
    del stored["bgr"]
    assert Preprocessing.from_json(stored) == digits.preprocess
    assert to_nested(SearchPlan())["data"]["normalize"] == "auto"
