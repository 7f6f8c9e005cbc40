"""Every operator record is complete."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from graphc.ir.opdef import KINDS, OPS
from tests.samples import SAMPLES

SOURCES = {"input", "constant", "iota"}


@pytest.mark.parametrize("name", OPS)
def test_record_is_complete(name: str) -> None:
    op = OPS[name]
    assert op.name == name
    assert op.kind in KINDS
    assert op.doc.endswith("."), "a doc is a sentence"
    assert callable(op.infer) and callable(op.evaluate)
    assert (op.vjp is None) == bool(op.why_no_vjp), "a gradient, or the reason why there is none"
    assert op.vjp is not None or op.why_no_vjp.startswith(("zero: ", "undefined: "))
    assert (op.scalar is not None) == (op.kind == "elementwise")
    assert (op.decompose is not None) == (op.kind == "composite")
    assert op.arity is None or op.arity >= 0
    assert len({a.name for a in op.attrs}) == len(op.attrs)
    if op.vjp is not None:
        assert len(inspect.signature(op.vjp).parameters) == 3


def test_every_operator_has_samples() -> None:
    assert set(SAMPLES) == set(OPS)


@pytest.mark.parametrize("name", OPS)
def test_samples_are_complete(name: str) -> None:
    samples = SAMPLES[name]
    assert bool(samples.smooth) == (OPS[name].vjp is not None), "gradients are tested where there are gradients"
    assert samples.bad or OPS[name].kind in ("source", "composite"), "error inputs"


def test_documentation_names_the_operators() -> None:
    """The list in docs/architecture.md and the registry agree."""
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    section = text[text.index("### Primitive operators") : text.index("## From graphs to kernels")]
    words = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`]*)`", section))))
    assert set(OPS) <= words
