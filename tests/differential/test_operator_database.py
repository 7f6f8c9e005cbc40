"""Operators on PyTorch's own samples: results, dtypes, shapes and gradients are PyTorch's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.operator_database import Missing, function_of, given, operators, parts, torch

SAMPLES = 4  # of each operator, from all over its list
OPERATORS = operators()
OTHER = {
    # drawn from a generator, or memory that nobody wrote
    **dict.fromkeys(
        (
            *("bernoulli", "multinomial", "normal", "normal/in_place", "normal/number_mean", "rand_like", "randn_like"),
            *("randint_like", "randint", "randn", "uniform", "cauchy", "exponential", "geometric"),
            *("log_normal", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
            *("empty_permuted", "nn.functional.rrelu", "svd_lowrank", "pca_lowrank", "nn.functional.alpha_dropout"),
            *("nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d"),
            *("nn.functional.feature_alpha_dropout", "nn.functional.fractional_max_pool2d"),
            *("nn.functional.fractional_max_pool3d", "nn.functional.multi_head_attention_forward"),
            *("nn.functional.scaled_dot_product_attention", "nn.functional.embedding_bag"),
        ),
        "random",
    ),
    # of equal elements either may be named
    **dict.fromkeys(("kthvalue", "topk", "mode", "sort", "argsort", "msort"), "ties"),
    # matrices of which several are right
    **dict.fromkeys(("linalg.eigh", "linalg.svd", "svd", "linalg.qr", "qr", "geqrf", "linalg.lstsq"), "choice"),
    # nothing is said of triangles that are not read
    **dict.fromkeys(("cholesky_inverse", "cholesky_solve", "linalg.ldl_factor", "linalg.ldl_factor_ex"), "triangle"),
    "as_strided_scatter": "PyTorch's gradient of what is written over is not zero",
    "nextafter": "has no gradient here",
    "logcumsumexp": "PyTorch's gradient is off by a thousandth",
    "nn.functional.ctc_loss": "PyTorch's gradient is off by a fortieth",
    "nn.functional.linear_cross_entropy": "takes weights of two dimensions here",
    "nn.functional.batch_norm": "takes no tensors of one dimension, not even empty ones",
    "nn.functional.local_response_norm": "takes floats here",
    "nn.functional.triplet_margin_with_distance_loss": "samples hold functions of PyTorch's",
    "max_pool2d_with_indices_backward": "an internal of PyTorch's",
    "__radd__": "also takes numbers here",
}


def close(found: Any, wanted: Any) -> None:
    """A result is PyTorch's, up to the order of sums."""
    if not isinstance(wanted, torch.Tensor):
        assert found == wanted or (found != found and wanted != wanted)
        return
    assert str(found.dtype) == str(wanted.dtype) and tuple(found.shape) == tuple(wanted.shape)
    if "bfloat16" in str(found.dtype):
        found, wanted = found.float(), wanted.float()
    a, b = found.detach().numpy(), wanted.detach().resolve_neg().numpy()
    if a.dtype.kind != "f":
        np.testing.assert_array_equal(a, b)
        return
    size = float(np.abs(b[np.isfinite(b)]).max(initial=1))
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=4e-5 * size)


def check_gradients(made: list[Any], wanted: list[Any], leaves: list[Any], theirs: list[Any]) -> None:
    outputs = [x for x in made if isinstance(x, graphc.Tensor) and x.requires_grad]
    expected = [x for x in wanted if isinstance(x, torch.Tensor) and x.requires_grad]
    assert len(outputs) == len(expected)
    if not outputs or not leaves:
        return
    cotangents = [torch.randn(x.shape, dtype=x.dtype) for x in expected]
    try:
        right = torch.autograd.grad(expected, theirs, cotangents, allow_unused=True)
    except RuntimeError:  # some have no gradient there
        return
    for mine, its in zip(
        graphc.autograd.grad(outputs, leaves, given(cotangents), allow_unused=True), right, strict=True
    ):
        if mine is None or its is None:
            assert mine is its or not float(abs(its if mine is None else mine).sum())
        elif not its._is_zerotensor():
            close(mine, its)


CASES = [
    pytest.param(name, dtype, id=f"{name}-{dtype}")
    for name, op in OPERATORS.items()
    for dtype in ("float32", "int64")
    if getattr(torch, dtype) in op.dtypes and not {op.name, name} & OTHER.keys()
]


def test_what_is_left_out_is_there() -> None:
    assert OTHER.keys() <= {*OPERATORS, *(op.name for op in OPERATORS.values())}


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_operator(name: str, dtype: str) -> None:
    op, kind, compared = OPERATORS[name], getattr(torch, dtype), 0
    grads = dtype == "float32" and op.supports_autograd
    function = function_of(op)
    assert function is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        samples = list(op.sample_inputs("cpu", kind, requires_grad=grads))
        for sample in samples[:: max(1, len(samples) // SAMPLES)][:SAMPLES]:
            call = (sample.input, *sample.args), sample.kwargs
            try:
                args, kwargs = given(call)
            except Missing:
                continue
            try:
                wanted = list(parts(op.op(*call[0], **call[1])))
            except (RuntimeError, NotImplementedError):
                continue
            try:
                made = list(parts(function(*args, **kwargs)))
            except NotImplementedError as error:
                assert any(word in str(error) for word in ("complex", "sparse", "overlap")), error
                continue
            assert len(made) == len(wanted)
            compared += 1
            for mine, its in zip(made, wanted, strict=True):
                close(mine, its)
            if grads:
                leaves = [x for x in parts([args, kwargs]) if isinstance(x, graphc.Tensor) and x.requires_grad]
                theirs = [x for x in parts([*call]) if isinstance(x, torch.Tensor) and x.requires_grad]
                check_gradients(made, wanted, leaves, theirs)
    if not compared:
        pytest.skip("graphc has none of its samples: complex numbers, sparse tensors, views that overlap")
