"""Several outputs: losses, qualities and intervals are those of the outputs, put together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.data.tasks import (
    MEAN_METRIC,
    Masks,
    MultiClass,
    Regression,
    Segmentation,
    Several,
    Task,
    describe_metric,
)
from compress.plugins import TASKS

COUNT = 24


def parts() -> dict[str, tuple[Task, Any, Any]]:
    """A task, labels and scores of each output."""
    rng = np.random.default_rng(0)

    def scores(*shape: int) -> Any:
        return rng.normal(size=(COUNT, *shape)).astype(np.float32)

    box = rng.normal(2.0, 3.0, (COUNT, 4)).astype(np.float32)
    pixels = rng.integers(3, size=(COUNT, 5, 5))
    mask = rng.integers(2, size=(COUNT, 5, 5, 1)).astype(np.int8)
    return {
        "box": (Regression.from_labels(box), box, scores(4)),
        "pixels": (Segmentation.for_labels(3, pixels), pixels, scores(5, 5, 3)),
        "mask": (Masks.for_labels(1, mask), mask, scores(5, 5, 1)),
    }


def several(weights: tuple[float, ...] = ()) -> tuple[Several, Any, Any]:
    found = parts()
    task = Several(tuple((name, part[0]) for name, part in found.items()), weights)
    labels, scores = ({name: part[place] for name, part in found.items()} for place in (1, 2))
    return task, labels, scores


def test_the_loss_is_the_weighted_sum() -> None:
    task, labels, scores = several((2.0, 0.5, 3.0))
    found = task.loss(labels, scores).numpy()
    expected = sum(
        weight * part.loss(y, made).numpy()
        for weight, (part, y, made) in zip((2.0, 0.5, 3.0), parts().values(), strict=True)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert task.error(labels, scores) == pytest.approx(expected.mean(), rel=1e-5)


def test_outputs_count_alike_unless_they_are_weighted() -> None:
    task, labels, scores = several()
    shares = [part.chance_loss() for part, _, _ in parts().values()]
    assert list(task.loss_weights.values()) == pytest.approx([1 / share for share in shares])
    assert task.chance_loss() == pytest.approx(len(shares))
    # the same box in another unit
    other = {**labels, "box": labels["box"] * 100}
    wide = Several((("box", Regression.from_labels(other["box"])), *task.each[1:]))
    moved = {**scores, "box": scores["box"] * 100}
    np.testing.assert_allclose(wide.loss(other, moved), task.loss(labels, scores), rtol=1e-5)


def test_qualities_stand_behind_the_outputs_names() -> None:
    task, labels, scores = several()
    threshold = {"box": 0.0, "pixels": 0.0, "mask": 0.3}
    found = task.quality(labels, scores, threshold=threshold)
    own = {
        name: part.quality(y, made, threshold=threshold[name])
        for name, (part, y, made) in parts().items()
    }
    assert found["mask.dice"] == own["mask"]["dice"]
    assert set(task.qualities) <= set(found)
    main = [max(0.0, own["box"]["r2"]), own["pixels"]["mean_iou"], own["mask"]["mean_iou"]]
    assert found[MEAN_METRIC] == pytest.approx(np.mean(main))
    assert task.agreement(scores, scores) == pytest.approx(1.0)
    assert describe_metric("box.r2")[0] == "R2 (box)"
    # chance is that of each output: the mean over them, or that of the output which judges
    chances = {name: part.chance(y) for name, (part, y, _) in parts().items()}
    assert chances["box"] == 0.0
    assert task.chance(labels) == pytest.approx(np.mean(list(chances.values())))
    dice = parts()["mask"][0].judged_by("dice")
    judge = Several(task.each, main="mask.dice")
    assert judge.chance(labels) == dice.chance(labels["mask"]) > 0.3
    assert judge.chance_error(labels, 1.0) == dice.chance_error(labels["mask"], 1.0)


def test_tallies_add_up_to_the_qualities() -> None:
    task, labels, scores = several()
    tallies = task.tallies(labels, scores)
    assert [len(terms) for terms in tallies.values()] == [COUNT] * len(task.each)
    found = task.compute_from_tallies({name: terms.sum(0) for name, terms in tallies.items()})
    assert found == task.quality(labels, scores)
    classes = Several((("a", MultiClass(3)), ("box", task.each[0][1])))
    y = {"a": np.arange(COUNT) % 3, "box": labels["box"]}
    assert classes.tallies(y, {"a": np.zeros((COUNT, 3)), "box": scores["box"]}) is None


def test_labels_alone_do_not_tell_the_tasks() -> None:
    with pytest.raises(InputError, match="name an output each"):
        TASKS["several"].for_labels(2, None)
