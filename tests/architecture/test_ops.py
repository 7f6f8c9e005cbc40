"""Every operator is one complete record: documented, typed, evaluable, differentiable or saying why not."""

from __future__ import annotations

import pytest

import graphc.ir  # noqa: F401  (fills the registry)
from graphc.codegen.kernel import OPERATIONS
from graphc.ir.opdef import KINDS, OPS, OpDef
from tests.architecture.sources import ROOT

ATTRIBUTE_KINDS = {"int", "ints", "float", "str", "dtype", "scalar", "bool"}


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_record_is_complete(op: OpDef) -> None:
    assert op.kind in KINDS
    assert len(op.doc) >= 15, "the documentation says too little"
    assert callable(op.infer) and callable(op.evaluate)
    assert op.kind == "source" or (op.vjp is None) == bool(op.why_no_vjp), "a vjp, or the reason why there is none"
    assert (op.kind == "composite") == (op.decompose is not None), "composites and only they decompose"
    assert (op.kind == "elementwise") == (op.scalar is not None), "elementwise ops and only they have a scalar form"
    assert {a.kind for a in op.attrs} <= ATTRIBUTE_KINDS
    assert not op.commutative or op.arity == 2
    assert OPS[op.name] is op


def test_registry_is_filled() -> None:
    assert len(OPS) > 50
    assert {"input", "constant", "add", "contract", "reduce_sum", "gather"} <= OPS.keys()
    assert OPERATIONS


def test_every_operator_is_documented() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [name for name in OPS if name not in page]
    assert not missing, f"docs/architecture.md does not name {missing}"
