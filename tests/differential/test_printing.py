"""`repr` is PyTorch's, character for character, over generated tensors and print options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
OPTIONS: dict[str, list[Any]] = {
    "precision": [0, 1, 2, 6, 10],
    "threshold": [0, 5, 20, 100],
    "edgeitems": [0, 1, 2, 5],
    "linewidth": [10, 40, 120],
    "sci_mode": [True, False],
    "profile": ["default", "short", "full"],
}


@pytest.fixture(autouse=True)
def default_options() -> Iterator[None]:
    yield
    for library in (torch, graphc):
        library.set_printoptions(profile="default")


def numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of one of several kinds: normal, whole, of many magnitudes, small, special, large whole."""
    normal = rng.normal(size=shape)
    special = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
    kinds = (
        normal,
        np.round(normal * 10),
        normal * 10.0 ** rng.integers(-12, 12, shape),
        normal * 1e-5,
        np.where(rng.random(shape) < 0.3, special, normal * 100),
        np.round(normal * 1e4),
        np.where(rng.random(shape) < 0.5, special, 1e9),
        normal * 1000,
    )
    return np.asarray(kinds[rng.integers(len(kinds))])


def shape_of(rng: np.random.Generator) -> tuple[int, ...]:
    if rng.random() < 0.2:
        return (int(rng.choice([30, 200, 1001, 1200])), *rng.choice([1, 2, 3], rng.integers(0, 2)).tolist())
    return tuple(
        rng.choice([0, 1, 2, 3, 5, 7, 8], rng.integers(0, 5), p=[0.04, 0.16, 0.3, 0.2, 0.1, 0.1, 0.1]).tolist()
    )


@pytest.mark.parametrize("seed", range(60))
def test_repr_of_generated_tensors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        array, dtype = numbers(rng, shape_of(rng)), str(rng.choice(DTYPES))
    theirs = torch.tensor(array).to(getattr(torch, dtype))
    ours = graphc.tensor(theirs.to(torch.float64).numpy()).to(getattr(graphc, dtype))
    if theirs.is_floating_point() and rng.random() < 0.5:
        theirs.requires_grad_()
        ours.requires_grad_()
        if rng.random() < 0.5:
            theirs, ours = theirs * 2, ours * 2
    options = {k: v[rng.integers(len(v))] for k, v in OPTIONS.items() if seed % 2 and rng.random() < 0.4}
    for library in (torch, graphc):
        library.set_printoptions(**options)
    assert repr(ours) == repr(theirs), options


def test_text_of_parameters() -> None:
    def texts(library: Any) -> list[str]:
        parameter = library.nn.Parameter(library.tensor([1.5, 2.0]))
        frozen = library.nn.Parameter(library.tensor([[1.0]]), requires_grad=False)
        module = library.nn.Linear(2, 1)
        with library.no_grad():
            module.weight.fill_(0.5)
        return [repr(parameter), repr(frozen), str(module.weight), f"{parameter}", repr(parameter * 2)]

    assert texts(graphc) == texts(torch)


@pytest.mark.parametrize(
    "make",
    [
        lambda t: format(t.tensor(3.14159), ".2f"),
        lambda t: f"{t.tensor(3)} {t.tensor(3.5)} {t.tensor(True)} {t.tensor([1, 2])}",
        lambda t: f"{t.tensor(3):>5}|",
        lambda t: f"{t.tensor(3.14159, requires_grad=True):.2f}",
        lambda t: f"{t.nn.Parameter(t.tensor(1.5))}",
        lambda t: "{}".format(t.zeros(0, 3)),  # noqa: UP032 - the form under test
    ],
)
def test_format_is_that_of_torch(make: Any) -> None:
    assert make(graphc) == make(torch)


def test_format_of_larger_tensors_takes_no_spec() -> None:
    for library in (torch, graphc):
        with pytest.raises(TypeError, match=r"unsupported format string passed to Tensor\.__format__"):
            format(library.tensor([1.5]), ".2f")
