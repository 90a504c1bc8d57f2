"""How often verdicts, ties and choices are wrong, on predictions of real models.

    python -m benchmarks.verdicts [--draws 1000] [--resume FILE]

Six trained models (benchmarks/nets) and smaller versions of each (int8 by post-training
quantization; 0.9x, 0.8x, 0.65x and 0.5x of the MACs, reconstructed without training) predict the
10,000 test images of Fashion-MNIST, which trained and selected none of them. Which of these
predictions are right is stored; everything else is drawn from that:

- Verdicts: the images are split into validation, test and fresh ones. Validation selects a file
  for a limit of the drop, the test part gives the verdict, the fresh ones say whether it is true.
- Ties: models that are equally good by construction (each image is predicted rightly with the
  share of versions that do) are compared in each place that calls a difference one, and models
  that differ by two percentage points for the power.
- Replay: the files of stored runs of `shrink_goals`, and which of them would ship now.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, compare_means, table
from benchmarks._stored import RESULTS, Stored
from compress.core.errors import RunFailed
from compress.core.statistics import compare_examples, compare_shares
from compress.measure.verdict import (
    MET,
    MISSED,
    FileCandidate,
    MetricLimit,
    build_verdict,
    select_file,
)

NETS = ("separable", "mobilenet", "vit", "convnext", "lstm", "resnet20")
SHARES = (0.9, 0.8, 0.65, 0.5)
"""Of the MACs that are kept."""
ORIGINAL, INT8 = "float32", "int8"
VALIDATION, TEST = 2000, 3000
LIMITS = (0.25, 0.5, 1.0, 2.0)
"""In percentage points, beside those around each version's true drop."""
AROUND = (0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
"""Factors of a version's true drop."""
POWER_GAP = 0.02
Bits = npt.NDArray[np.bool_]


def predict_versions(name: str) -> dict[str, Bits]:
    """Return which test images a model and its smaller versions predict rightly, (10,000,)."""
    from benchmarks.quantize_nets import net_of
    from benchmarks.resnet20 import load_fashion
    from compress.exporting import export
    from compress.exporting.file_checks import predict_examples
    from compress.measure.file_agreement import prepare_sessions
    from compress.plan import ExportOptions
    from compress.prune.channels import prune_channels
    from compress.train.predict import predict_logits

    data, (model, _) = load_fashion(), net_of(name)

    def right(scores: Any) -> Bits:
        found: Bits = np.asarray(scores).argmax(-1) == data.test.y
        return found

    versions = {ORIGINAL: right(predict_logits(model, data, "test"))}
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(formats=(INT8,))
        try:
            (file,) = export(model, Path(folder) / name, data=data, options=options)
            answers = predict_examples(
                model, prepare_sessions(file.path, 1), data.test.x, data.preprocess
            )
            versions[INT8] = right(answers)
        except RunFailed as error:  # the converter crashes on LSTMs
            print(f"{name}: {error}", flush=True)
    for share in SHARES:
        small = prune_channels(model, macs=share, data=data, repair=True).model
        versions[f"{share}x MACs"] = right(predict_logits(small, data, "test"))
    return versions


def pack(bits: Bits) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")


def unpack(text: str, count: int) -> Bits:
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    found: Bits = np.unpackbits(packed)[:count].astype(bool)
    return found


def draw_verdicts(versions: Mapping[str, Bits], limit: float, draws: int, seed: int) -> Any:
    """Return how often a limit was said to be met, and how often fresh images say otherwise.

    Args:
        versions: Of one model.
        limit: Drop that is allowed, in [0, 1].
        draws: Splits into validation, test and fresh images.
        seed: Of the splits.
    """
    random = np.random.default_rng(seed)
    original, asked = versions[ORIGINAL], MetricLimit(max_drop=limit)
    counts = dict.fromkeys(("met", "false", "old met", "old false"), 0)
    for _ in range(draws):
        order = random.permutation(len(original))
        val, test, fresh = np.split(order, [VALIDATION, VALIDATION + TEST])
        # by rising cost: smaller ones are cheaper
        files = [
            FileCandidate(key, float(bits[val].mean()), {"size": -float(place)}, bits[val] * 1.0)
            for place, (key, bits) in enumerate(versions.items())
        ]
        chosen = versions[select_file(files, original=files[0], limit=asked).id]
        state = _judge(chosen, original, test, asked)
        truth = original[fresh].mean() - chosen[fresh].mean()
        counts["met"] += state == MET
        counts["false"] += int(state == MET and truth > limit)
        # the rule of before: the cheapest whose validation metric is inside is called met
        inside = [file for file in files if file.metric >= files[0].metric - limit - 1e-9]
        old = versions[inside[-1].id]
        counts["old met"] += 1
        counts["old false"] += int(original[fresh].mean() - old[fresh].mean() > limit)
    return counts


def _judge(chosen: Bits, original: Bits, index: npt.NDArray[np.int64], limit: MetricLimit) -> str:
    before = original[index] * 1.0
    after = before if chosen is original else chosen[index] * 1.0
    return build_verdict(
        "accuracy", float(after.mean()), float(before.mean()), values=after, original=before,
        examples=len(index), limit=limit,
    ).state  # fmt: skip


def draw_single(original: Bits, small: Bits, limit: float, draws: int, seed: int) -> Any:
    """Return how often one version is said to meet a limit, beside the truth of fresh images."""
    random, asked = np.random.default_rng(seed), MetricLimit(max_drop=limit)
    counts = dict.fromkeys(("met", "false", "missed"), 0)
    for _ in range(draws):
        order = random.permutation(len(original))
        test, fresh = order[:TEST], order[TEST:]
        state = _judge(small, original, test, asked)
        truth = original[fresh].mean() - small[fresh].mean()
        counts["met"] += state == MET
        counts["false"] += int(state == MET and truth > limit)
        counts["missed"] += state == MISSED
    return counts


def draw_power(original: Bits, small: Bits, draws: int, seed: int) -> float:
    """Return how often 5,000 test images show a drop inside four times the true one."""
    limit = 4 * float(original.mean() - small.mean())
    random, asked = np.random.default_rng(seed), MetricLimit(max_drop=limit)
    met = 0
    for _ in range(draws):
        met += _judge(small, original, random.permutation(len(original))[:5000], asked) == MET
    return met / draws


def draw_ties(versions: Mapping[str, Bits], draws: int, seed: int) -> dict[str, Any]:
    """Return how often each place calls equal models different, and what differs by two points.

    Args:
        versions: Of one model: the share of them that predict an image rightly is the chance that
            each of the equal models does.
        draws: Comparisons in each place.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    chance = np.mean(list(versions.values()), axis=0)
    # every version of a few may be right or wrong by luck
    chance = (chance * len(versions) + chance.mean()) / (len(versions) + 1)
    spread = chance * (1 - chance)
    worse = np.clip(chance - POWER_GAP * spread / spread.mean(), 0, 1)
    places = {
        "choice and verdict, 2,000 examples": (_paired, _paired_before, 2000),
        "report A B, fronts of six files, 2,000 examples": (_fronts, _fronts_before, 2000),
        "best of 50 variations, 2,000 examples": (_best_of, _best_of_before, 2000),
        "benchmark tables, three seeds, 10,000 examples": (_seeds, _seeds_before, 10_000),
    }
    found = {}
    for place, (rule, before, count) in places.items():
        counts = np.zeros(4)
        repeats = draws if rule is not _best_of else max(1, draws // 5)
        for _ in range(repeats):
            index = random.integers(len(chance), size=count)
            new = chance[index]
            for offset, old in ((0, new), (2, worse[index])):
                counts[offset] += rule(random, new, old)
                counts[offset + 1] += before(random, new, old)
        rates = [float(value) for value in counts / repeats]
        found[place] = {
            "false": rates[0], "false before": rates[1], "power": rates[2],
            "power before": rates[3], "draws": repeats,
        }  # fmt: skip
    return found


def _sample(random: np.random.Generator, chance: Any, rows: int = 1) -> Any:
    return (random.random((rows, len(chance))) < chance) * 1.0


def _paired(random: np.random.Generator, new: Any, old: Any) -> bool:
    (one,), (other,) = _sample(random, new), _sample(random, old)
    return not compare_examples(one, other).is_tie


def _error_of_shares(one: Any, other: Any) -> float:
    return float(np.sqrt(sum(v.mean() * (1 - v.mean()) / len(v) for v in (one, other))))


def _paired_before(random: np.random.Generator, new: Any, old: Any) -> bool:
    """Return whether estimates differ at all: what decided before."""
    (one,), (other,) = _sample(random, new), _sample(random, old)
    return bool(one.mean() != other.mean())


def _fronts(random: np.random.Generator, new: Any, old: Any) -> bool:
    """Compare six pairs of files, as fronts of two runs are."""
    pairs = zip(_sample(random, new, 6), _sample(random, old, 6), strict=True)
    return any(not compare_examples(one, other, comparisons=6).is_tie for one, other in pairs)


def _fronts_before(random: np.random.Generator, new: Any, old: Any) -> bool:
    pairs = zip(_sample(random, new, 6), _sample(random, old, 6), strict=True)
    return any(abs(a.mean() - b.mean()) > _error_of_shares(a, b) for a, b in pairs)


def _best_of(random: np.random.Generator, new: Any, old: Any) -> bool:
    """Compare the best of fifty variations, one of them the new model, with the recipe's."""
    others = np.concatenate([_sample(random, old, 49), _sample(random, new)])
    (recipe,) = _sample(random, old)
    best = others[others.mean(1).argmax()]
    return compare_examples(best, recipe, comparisons=50).low > 0 or (
        compare_examples(best, recipe, comparisons=50).high < 0
    )


def _best_of_before(random: np.random.Generator, new: Any, old: Any) -> bool:
    others = np.concatenate([_sample(random, old, 49), _sample(random, new)])
    (recipe,) = _sample(random, old)
    share = recipe.mean()
    return bool(others.mean(1).max() > share + np.sqrt(share * (1 - share) / len(recipe)))


def _means(random: np.random.Generator, new: Any, old: Any) -> list[tuple[float, float, int]]:
    each = [_sample(random, chance, 3).mean(1) for chance in (new, old)]
    return [(float(v.mean()), float(v.std(ddof=1) / 3**0.5), 3) for v in each]


def _seeds(random: np.random.Generator, new: Any, old: Any) -> bool:
    one, other = _means(random, new, old)
    return not compare_means(*one, *other).is_tie


def _seeds_before(random: np.random.Generator, new: Any, old: Any) -> bool:
    one, other = _means(random, new, old)
    return abs(one[0] - other[0]) > 2 * float(np.hypot(one[1], other[1]))


def replay_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return which file of a stored run would ship now, by what is stored of its files.

    Stored runs hold no predictions by example: what cannot be told apart is evaluated with
        validation
    metrics alone, and drops as if of different examples, which is wider than paired intervals.

    Args:
        run: Of `shrink_goals`.
    """
    outcome, files = run["outcome"], run["files"]
    original = next(item for item in files if item["val"] == run["dense"]["val"]
                    and item["format"] == run["dense"]["format"])  # fmt: skip
    before = outcome["chosen"]
    goal = outcome["goal"]
    candidates = [
        FileCandidate(
            item["id"], item["val"],
            {"latency": 1 / item["ratio"] if item["ratio"] else 9e9, "size": float(item["bytes"])},
        )
        for item in files if _meets(goal, item, run)
    ]  # fmt: skip
    chosen = select_file(candidates).id if candidates else before
    by_id = {item["id"]: item for item in files}
    now = by_id[chosen]
    return {
        "goal": goal, "before": before, "now": chosen, "same": chosen == before,
        "speed": [by_id[before]["ratio"], now["ratio"]],
        "test": [original["test"], by_id[before]["test"], now["test"]],
        "val": [original["val"], by_id[before]["val"], now["val"]],
        "drop": _judge_stored(original, now, goal),
    }  # fmt: skip


def _meets(goal: str, item: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Return whether a stored file meets the goals of cost that can be read off the text."""
    for part in goal.split(", "):
        name, _, asked = part.partition(" ")
        left = 1 / item["ratio"] if item["ratio"] else 9e9
        if name == "latency" and left > 1.03 * float(asked[:-1]):
            return False
        if name == "size" and item["bytes"] > float(asked.partition("kB")[0]) * 1000:
            return False
        if name == "MACs" and item["macs"] > float(asked.partition("x")[0]) * run["dense"]["macs"]:
            return False
    return True


def _judge_stored(original: Mapping[str, Any], now: Mapping[str, Any], goal: str) -> str:
    """Return a verdict by shares of different examples, 10,000 of them; wider than paired."""
    _, found, floor = goal.partition("at least ")
    if not found:
        return ""
    allowed = original["val"] - float(floor)
    change = compare_shares(now["test"], 10_000, original["test"], 10_000)
    if change.low >= -allowed:
        return MET
    return "missed" if change.estimate < -allowed else "met within noise"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--draws", type=int, default=1000, help="of everything that is drawn")


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Predict once, then draw."""
    kept = stored.result.setdefault("right", {})
    for name in NETS:
        if name not in kept:
            versions = predict_versions(name)
            kept[name] = {key: pack(bits) for key, bits in versions.items()}
            print(name, {key: f"{bits.mean():.4f}" for key, bits in versions.items()}, flush=True)
            stored.save(images=len(versions[ORIGINAL]))
    count = stored.result["images"]
    verdicts, single, shown, ties = {}, {}, {}, {}
    for place, name in enumerate(NETS):
        versions = {key: unpack(text, count) for key, text in kept[name].items()}
        for points in LIMITS:
            verdicts[f"{name}, {points:g} pp"] = draw_verdicts(
                versions, points / 100, given.draws, place
            )
        for key, bits in versions.items():
            drop = float(versions[ORIGINAL].mean() - bits.mean())
            if drop < 0.0005:
                continue
            shown[f"{name}, {key}"] = {
                "drop": drop, "met": draw_power(versions[ORIGINAL], bits, given.draws, place)
            }  # fmt: skip
            for factor in AROUND:
                single[f"{name}, {key}, {factor}"] = draw_single(
                    versions[ORIGINAL], bits, factor * drop, given.draws, place
                )
        ties[name] = draw_ties(versions, given.draws, place)
        stored.save(verdicts=verdicts, single=single, power=shown, ties=ties)
        print(name, "drawn", flush=True)
    newest = sorted((RESULTS / "shrink_goals").glob("*.json"))[-1]
    runs = json.loads(newest.read_text("utf-8"))["result"]["runs"]
    stored.save(
        replay={key: replay_run(item) for key, item in runs.items()
                if "refused" not in item and ", front, " not in key}
    )  # fmt: skip


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def met(result: dict[str, Any]) -> str | None:
    """Return the table of goals reported as met although fresh images say otherwise."""
    if "verdicts" not in result:
        return None
    draws = _draws(result)
    rows = [
        [key.partition(",")[0], key.partition(", ")[2], _percent(row["met"], draws),
         _percent(row["false"], draws), _percent(row["old met"], draws),
         _percent(row["old false"], draws)]
        for key, row in result["verdicts"].items()
    ]  # fmt: skip
    head = ["model", "limit", "met", "met and false", "met before", "met and false before"]
    return table(head, rows)


def _draws(result: dict[str, Any]) -> float:
    return float(next(iter(result["verdicts"].values()))["old met"])


def around(result: dict[str, Any]) -> str | None:
    """Return the table of limits around the true drop: the largest rates of all models."""
    if "single" not in result:
        return None
    draws, rows = _draws(result), []
    for factor in AROUND:
        found = [row for key, row in result["single"].items() if key.endswith(f", {factor}")]
        rows.append([
            f"{factor:g}x the true drop", len(found),
            _percent(float(np.mean([row["met"] for row in found])), draws),
            _percent(float(np.mean([row["false"] for row in found])), draws),
            _percent(max(row["false"] for row in found), draws),
        ])  # fmt: skip
    head = ["limit", "versions", "met, mean", "met and false, mean", "met and false, most"]
    return table(head, rows)


def power(result: dict[str, Any]) -> str | None:
    """Return the table of how often 5,000 test images show a drop of a quarter of the limit."""
    if "power" not in result:
        return None
    rows = []
    for low, high in ((0.0, 0.5), (0.5, 1.0), (1.0, 100.0)):
        found = [row["met"] for row in result["power"].values()
                 if low <= 400 * row["drop"] < high]  # fmt: skip
        name = f"below {high:g} pp" if not low else f"{low:g} to {high:g} pp"
        name = f"from {low:g} pp" if high == 100 else name
        if found:
            rows.append([name, len(found), _percent(float(np.mean(found)), 1),
                         _percent(min(found), 1)])  # fmt: skip
    return table(["limit, four times the true drop", "versions", "met, mean", "met, least"], rows)


def differences(result: dict[str, Any]) -> str | None:
    """Return the table of equal models called different, and of models two points apart."""
    if "ties" not in result:
        return None
    rows = []
    for place in next(iter(result["ties"].values())):
        found = [item[place] for item in result["ties"].values()]
        cells = [place]
        for key in ("false", "false before", "power", "power before"):
            values = [row[key] for row in found]
            cells.append(f"{100 * np.mean(values):.1f} % ({100 * max(values):.1f})")
        rows.append(cells)
    head = ["place", "equal: called different", "before", "2 pp apart: told apart", "before"]
    return table(head, rows)


def replay(result: dict[str, Any]) -> str | None:
    """Return the table of stored runs, with the file that would ship now."""
    if "replay" not in result:
        return None
    rows = []
    for key, row in result["replay"].items():
        quality = [f"{100 * value:.2f}" for value in row["test"]]
        speeds = [f"{value:.2f}x" if value else "-" for value in row["speed"]]
        rows.append([
            key, row["goal"], row["before"], "the same" if row["same"] else row["now"],
            speeds[0] if row["same"] else f"{speeds[0]} -> {speeds[1]}",
            f"{quality[0]} -> {quality[2]}", row["drop"] or "no limit",
        ])  # fmt: skip
    head = ["run", "goal", "shipped", "now", "speed", "test quality, %", "limit on test data"]
    return table(head, rows)


BENCHMARK = Benchmark(
    "verdicts", __doc__, run,
    {"met": met, "around": around, "power": power, "differences": differences, "replay": replay},
    arguments, resumable=True, grows=("draws",), anywhere=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
