"""Every code block of the five documents runs with `import graphc as torch` and prints what PyTorch printed.

Random values are compared by shape, dtype and range (`record.py` found the range over many seeds).
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.vision.datasets import CIFAR10
from tests.seeds.documents import (
    DOCUMENTS,
    ELSEWHERE,
    OTHER_OUTPUTS,
    OUTPUTS,
    REPAIRS,
    blocks,
    facts,
    for_graphc,
    masked,
    published,
    repaired,
    run,
)
from tests.seeds.record import FILE

RECORDED = json.loads(FILE.read_text(encoding="utf-8"))


def run_document(document: str) -> dict[int, tuple[str, dict[str, dict[str, Any]]]]:
    graphc.manual_seed(3)
    space: dict[str, Any] = {"__name__": "__main__"}
    return {number: (run(for_graphc(code), space), facts(space)) for number, code in blocks(document)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_print_what_pytorch_printed(document: str) -> None:
    wrong: list[str] = []
    outcomes = run_document(document)
    assert {str(n) for n in outcomes} == set(RECORDED[document])
    for number, (text, tensors) in outcomes.items():
        wanted = RECORDED[document][str(number)]
        if wanted["kind"] != "arbitrary":
            found = text if wanted["kind"] == "exact" else masked(text)
            if found != wanted["text"]:
                wrong.append(f"block {number} prints\n{found}\nPyTorch printed\n{wanted['text']}")
        wrong += [f"block {number}: {line}" for line in differences(tensors, wanted)]
    assert not wrong, "\n".join(wrong)


def differences(tensors: dict[str, dict[str, Any]], wanted: dict[str, Any]) -> list[str]:
    found: list[str] = []
    if set(tensors) != set(wanted["tensors"]):
        found.append(f"tensors {sorted(tensors)}, PyTorch {sorted(wanted['tensors'])}")
    for name, fact in wanted["tensors"].items():
        ours = tensors.get(name, fact)
        found += [
            f"{name}.{k} = {ours[k]}, PyTorch {fact[k]}"
            for k in ("dtype", "shape", "requires_grad")
            if ours[k] != fact[k]
        ]
        if wanted["kind"] == "arbitrary":
            continue
        reach = max(fact["high"] - fact["low"], 1e-6) if fact["random"] else 1e-5 * max(abs(fact["high"]), 1.0)
        if not fact["low"] - reach <= ours["low"] <= ours["high"] <= fact["high"] + reach:
            found.append(f"{name} in [{ours['low']}, {ours['high']}], PyTorch [{fact['low']}, {fact['high']}]")
    return found


@pytest.mark.parametrize(("document", "shown"), sorted(OUTPUTS))
def test_blocks_print_what_the_documents_show(document: str, shown: int) -> None:
    text, _ = run_document(document)[OUTPUTS[document, shown]]
    assert text.strip() == published(document)[shown].strip()


def test_every_block_is_accounted_for() -> None:
    for document in DOCUMENTS:
        shown = {n for d, n in (*OUTPUTS, *OTHER_OUTPUTS, *ELSEWHERE) if d == document}
        assert shown | {n for n, _ in blocks(document)} == set(range(len(published(document))))
    assert all(repair.why for repair in REPAIRS)


def test_the_block_that_shows_cifar_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads files of the published format, made here, and draws with a stand-in for matplotlib."""
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*CIFAR10.train_list, *CIFAR10.test_list):
        records = rng.integers(0, 256, (8, 3073), np.uint8)
        records[:, 0] %= 10
        records.tofile(folder / name)
    shown: list[Any] = []
    pyplot = types.ModuleType("matplotlib.pyplot")
    pyplot.imshow, pyplot.show = shown.append, lambda: shown.append("show")  # type: ignore[attr-defined]
    package = types.ModuleType("matplotlib")
    package.pyplot = pyplot  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "matplotlib", package)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    monkeypatch.chdir(tmp_path)
    graphc.manual_seed(0)
    code = for_graphc(repaired("learning_pytorch", 19, published("learning_pytorch")[19]))
    space: dict[str, Any] = {"__name__": "__main__"}
    lines = run(code, space).splitlines()
    assert lines[0] == "40"
    names = [space["classes"][i] for i in space["labels"].tolist()]
    assert lines[1] == " ".join(f"{name:>5}" for name in names)
    picture, after = shown
    assert after == "show" and picture.shape == (36, 138, 3)
    first = space["images"][0].numpy().transpose(1, 2, 0) / 2 + 0.5
    np.testing.assert_allclose(picture[2:34, 2:34], first, atol=1e-6)
    assert picture.min() >= 0 and picture.max() <= 1
