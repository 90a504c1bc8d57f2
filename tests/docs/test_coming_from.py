"""The pages "coming from": the code that is marked as ours does what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGES = Path(__file__).parents[2] / "docs" / "coming-from"

pytestmark = pytest.mark.slow


def blocks(page: str) -> list[tuple[str, str]]:
    """Titles and code of a page, in order."""
    found = re.findall(
        r'^```python title="([^"]+)"\n(.*?)^```$',
        (PAGES / page).read_text("utf-8"), re.MULTILINE | re.DOTALL,
    )  # fmt: skip
    assert found
    return found


def ran(page: str, *titles: str) -> dict[str, Any]:
    """Runs the blocks with these titles, one after the other, and returns their names."""
    names: dict[str, Any] = {}
    for title, code in blocks(page):
        if title in titles:
            exec(compile(code, f"{page}: {title}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def zeros(model: Any) -> list[float]:
    """The share of zeros in each kernel."""
    kernels = [np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    return [float(np.mean(kernel == 0)) for kernel in kernels]


def test_tfmot(capsys: pytest.CaptureFixture[str]) -> None:
    names = ran("tfmot.md", "both", "paretune")
    assert zeros(names["model"]) == pytest.approx([0.8, 0.8, 0.8], abs=0.005)
    _, middle, _ = zeros(names["sparse"].model)
    assert middle == pytest.approx(0.8, abs=0.005)
    assert len(names["sparse"].training.history) == 4
    assert "80.0% zeros" in capsys.readouterr().out


def test_keras_distillation() -> None:
    """Both sides: the other's needs nothing that is not installed."""
    theirs = ran("keras-distillation.md", "both", "keras.distillation")
    ours = ran("keras-distillation.md", "both", "paretune")
    for names in (theirs, ours):
        logits = names["student"].predict(names["x"], verbose=0)
        assert np.mean(logits.argmax(1) == names["y"]) > 0.5
    assert ours["result"].model is ours["student"]
    assert len(ours["result"].training.history) == 10


def test_torch_pruning() -> None:
    names = ran("torch-pruning.md", "paretune")
    before, after = names["result"].report.macs
    # by hand: positions x kernel x channels in x channels out, and the head
    assert before == 64 * 9 * 32 + 64 * 9 * 32 * 64 + 64 * 10
    one, two = (layer.filters for layer in names["small"].layers if hasattr(layer, "filters"))
    assert after == 64 * 9 * one + 64 * 9 * one * two + two * 10
    assert after / before == pytest.approx(0.5, abs=0.02)


def test_keras_tuner(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (space,) = (code for title, code in blocks("keras-tuner.md") if title.endswith("myspace.py"))
    (folder / "myspace.py").write_text(space)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = ran("keras-tuner.md", "paretune")
    found = names["report"].candidates
    assert len(found) == 6
    assert {1, 2, 3} >= {candidate.choices["depth"] for candidate in found}
    assert list(folder.glob("runs/*/report.html"))
