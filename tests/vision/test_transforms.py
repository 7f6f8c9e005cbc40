"""Transformations and picture grids give what torchvision gives (recorded by `record_torchvision.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import graphc as torch
from graphc.vision import transforms, utils
from graphc.vision.transforms import functional
from tests.vision.cases import PIXELS, REPRS, cases, outcome, repr_of
from tests.vision.record_torchvision import FILE

RECORDED = json.loads(FILE.read_text(encoding="utf-8"))
CASES = cases()


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    found, wanted = outcome(CASES[name](transforms, utils, torch.tensor)), RECORDED["results"][name]
    assert [(f["dtype"], f["shape"]) for f in found] == [(w["dtype"], w["shape"]) for w in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        # Resized integers may round the other way where a value lies between two.
        tolerance = 1.1e-5 if ours["dtype"].startswith("float") else int(name.startswith("resize") and "u8" in name)
        np.testing.assert_allclose(ours["values"], theirs["values"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("text", REPRS)
def test_repr(text: str) -> None:
    assert repr_of(text, transforms) == RECORDED["reprs"][text]


RANDOM: dict[str, Any] = {
    "RandomCrop": (lambda: transforms.RandomCrop(5, padding=2), (5, 5)),
    "RandomCrop needs padding": (lambda: transforms.RandomCrop(20, pad_if_needed=True), (20, 20)),
    "RandomHorizontalFlip": (lambda: transforms.RandomHorizontalFlip(), (9, 7)),
    "RandomVerticalFlip": (lambda: transforms.RandomVerticalFlip(), (9, 7)),
    "RandomResizedCrop": (lambda: transforms.RandomResizedCrop(8), (8, 8)),
    "RandomRotation": (lambda: transforms.RandomRotation(45), (9, 7)),
    "RandomGrayscale": (lambda: transforms.RandomGrayscale(0.5), (9, 7)),
    "ColorJitter": (lambda: transforms.ColorJitter(0.4, 0.4, 0.4, 0.2), (9, 7)),
    "RandomApply": (lambda: transforms.RandomApply([transforms.Grayscale(3)]), (9, 7)),
    "RandomChoice": (lambda: transforms.RandomChoice([transforms.Grayscale(3), functional.hflip]), (9, 7)),
    "RandomOrder": (
        lambda: transforms.RandomOrder([transforms.Grayscale(3), functional.hflip, transforms.Pad(0)]),
        (9, 7),
    ),
}


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_random_transformations_repeat_with_the_seed_and_differ_without(name: str) -> None:
    make, size = RANDOM[name]
    step, image = make(), Image.fromarray(PIXELS)

    def draw(seed: int) -> list[bytes]:
        torch.manual_seed(seed)
        made = [step(image) for _ in range(8)]
        assert all(m.size == size for m in made)
        return [m.tobytes() for m in made]

    first = draw(1)
    assert first == draw(1)
    assert len(set(first)) > 1 or name == "RandomOrder"  # these steps may be exchanged


def test_erasing() -> None:
    torch.manual_seed(0)
    image = torch.ones(3, 20, 20)
    erased = transforms.RandomErasing(p=1.0, value=[0.0, 2.0, 3.0])(image)
    gone = (erased[0] == 0).sum().item()
    assert 0.02 * 400 * 0.5 < gone < 0.33 * 400 * 1.3
    assert (erased[1] == 2).sum().item() == gone and (image == 1).all().item()
    assert transforms.RandomErasing(p=0.0)(image) is image


def test_save_image(tmp_path: Path) -> None:
    batch = torch.rand(5, 3, 4, 4)
    utils.save_image(batch, tmp_path / "grid.png", nrow=3, padding=1)
    with Image.open(tmp_path / "grid.png") as saved:
        expected = (utils.make_grid(batch, nrow=3, padding=1).numpy() * 255 + 0.5).clip(0, 255).astype(np.uint8)
        assert np.array_equal(np.asarray(saved), expected.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: functional.to_tensor("x"), TypeError, "pic should be PIL Image or ndarray"),
        (lambda: functional.normalize(torch.ones(3, 2, 2), [0.0] * 3, [0.0] * 3), ValueError, "std evaluated to zero"),
        (lambda: functional.pad(torch.ones(1, 2, 2), [1, 2, 3]), ValueError, "1, 2, or 4 element tuple"),
        (lambda: functional.resize(torch.ones(1, 2, 2), 4, max_size=4), ValueError, "strictly greater"),
        (lambda: functional.adjust_hue(Image.new("RGB", (2, 2)), 0.7), ValueError, r"not in \[-0.5, 0.5\]"),
        (lambda: functional.hflip([1]), TypeError, "img should be PIL Image"),
        (lambda: transforms.RandomCrop(9)(torch.ones(1, 4, 4)), ValueError, r"crop size \(9, 9\) is larger"),
        (lambda: transforms.ColorJitter(hue=0.9), ValueError, "hue values should be between"),
        (lambda: transforms.RandomErasing(p=2.0), ValueError, "between 0 and 1"),
        (lambda: utils.make_grid(np.ones((2, 2))), TypeError, "tensor or list of tensors expected"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()
