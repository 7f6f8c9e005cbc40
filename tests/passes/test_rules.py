"""Every rewrite rule, on many random bindings: the evaluator finds the same value before and after."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir import evaluate, verify
from graphc.passes.pattern import Rule
from graphc.passes.rules import ALL_RULES
from tests.passes.instances import instances, random_array

BINDINGS = 1000  # compared elements of a rule, at least
LEAST = 3  # different graphs of a rule, at least
GRAPHS = 200  # enough, however small they are


def same_bits(got: np.ndarray, want: np.ndarray, signs: bool = True) -> bool:
    """Equal element by element: any NaN is like any other, zeros differ by their sign if `signs`."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return False
    if got.dtype.kind in "iub":
        return bool(np.array_equal(got, want))
    got, want = got.astype(np.float64), want.astype(np.float64)
    equal = (np.isnan(got) & np.isnan(want)) | (
        (got == want) & (~np.bool_(signs) | (np.signbit(got) == np.signbit(want)))
    )
    return bool(equal.all())


def is_tame(rule: Rule) -> bool:
    """Rules that hold for sums in any order, or for finite values, are tried on values whose sums are exact."""
    return rule.exactness in ("reassociates", "no_nans") or rule.name.startswith("contract-permute")


def test_names_are_unique() -> None:
    names = [rule.name for rule in ALL_RULES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)
def test_rule_keeps_the_value(rule: Rule) -> None:
    rng = np.random.default_rng(0)
    bindings = graphs = 0
    for before, after in instances(rule, seed=0, attempts=20_000):
        verify(before)
        verify(after)
        assert before.outputs[0].type == after.outputs[0].type
        for _ in range(3):
            arrays = [random_array(rng, node.type, is_tame(rule)) for node in before.inputs]
            (want,), (got,) = evaluate(before, arrays), evaluate(after, arrays)
            assert same_bits(got, want, signs=rule.exactness == "exact"), (
                f"{rule.name}\n{before}\n{after}\n{arrays}\n{want}\n{got}"
            )
        bindings += 3 * max(1, before.outputs[0].type.size)
        graphs += 1
        # Rules on constants and on nothing have few elements to compare; they must apply to many graphs instead.
        if (bindings >= BINDINGS and graphs >= LEAST) or graphs >= GRAPHS:
            return
    pytest.fail(f"{rule.name} applied to {graphs} graphs only")
