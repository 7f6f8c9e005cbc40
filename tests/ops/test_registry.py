"""Every operator record is complete."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from graphc.ir.opdef import KINDS, OPS
from tests.samples import SAMPLES


@pytest.mark.parametrize("name", OPS)
def test_record_is_complete(name: str) -> None:
    op = OPS[name]
    assert op.name == name
    assert op.kind in KINDS
    assert op.doc.endswith("."), "a doc is a sentence"
    assert callable(op.infer) and callable(op.evaluate)
    assert (op.vjp is None) == bool(op.why_no_vjp), "a gradient, or the reason why there is none"
    assert op.vjp is not None or op.why_no_vjp.startswith(("zero: ", "undefined: "))
    assert not op.is_heavy or op.kind == "elementwise"
    assert (op.decompose is not None) == (op.kind == "composite")
    assert op.arity is None or op.arity >= 0
    assert len({a.name for a in op.attrs}) == len(op.attrs)
    assert {a.kind for a in op.attrs} <= {"int", "ints", "float", "str", "dtype", "scalar", "bool"}
    assert not op.commutative or op.arity == 2
    if op.vjp is not None:
        assert len(inspect.signature(op.vjp).parameters) == 3


def test_every_operator_has_samples() -> None:
    assert set(SAMPLES) == set(OPS)


@pytest.mark.parametrize("name", OPS)
def test_samples_are_complete(name: str) -> None:
    samples = SAMPLES[name]
    assert bool(samples.smooth) == (OPS[name].vjp is not None), "gradients are tested where there are gradients"
    assert samples.bad or OPS[name].kind in ("source", "composite"), "error inputs"


def test_every_operator_is_documented() -> None:
    """The tables of docs/ir.md name every operator of the registry."""
    text = (Path(__file__).parents[2] / "docs" / "ir.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`\n]*)`", text))))
    assert sorted(set(OPS) - words) == []
