"""`nn.functional` and tensor functions against PyTorch: values, dtypes and gradients."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.differential.compare import check, floats, spread
from tests.differential.samples import OPERATORS

# PyTorch warns about its own use of its old compiler.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def F(library: Any) -> Any:
    return importlib.import_module(f"{library.__name__}.nn.functional")


ELEMENTWISE = {
    "relu": lambda t, x: F(t).relu(x),
    "leaky_relu": lambda t, x: F(t).leaky_relu(x, 0.2),
    "elu": lambda t, x: F(t).elu(x, 0.7),
    "gelu": lambda t, x: F(t).gelu(x),
    "gelu_tanh": lambda t, x: F(t).gelu(x, approximate="tanh"),
    "silu": lambda t, x: F(t).silu(x),
    "softplus": lambda t, x: F(t).softplus(x),
    "softplus_steep": lambda t, x: F(t).softplus(x, beta=3.0, threshold=2.0),
    "softsign": lambda t, x: F(t).softsign(x),
    "logsigmoid": lambda t, x: F(t).logsigmoid(x),
    "mish": lambda t, x: F(t).mish(x),
    "selu": lambda t, x: F(t).selu(x),
    "relu6": lambda t, x: F(t).relu6(x * 5),
    "hardtanh": lambda t, x: F(t).hardtanh(x, -0.7, 0.4),
    "hardsigmoid": lambda t, x: F(t).hardsigmoid(x * 3),
    "hardswish": lambda t, x: F(t).hardswish(x * 3),
    "sigmoid": lambda t, x: F(t).sigmoid(x),
    "tanh": lambda t, x: F(t).tanh(x),
    "exp": lambda t, x: t.exp(x),
    "log": lambda t, x: t.log(x.abs() + 0.1),
    "log1p": lambda t, x: t.log1p(x.abs()),
    "sqrt": lambda t, x: t.sqrt(x.abs()),
    "rsqrt": lambda t, x: t.rsqrt(x.abs() + 0.5),
    "sin": lambda t, x: t.sin(x),
    "cos": lambda t, x: t.cos(x),
    "abs": lambda t, x: x.abs(),
    "square": lambda t, x: x**2,
    "power": lambda t, x: (x.abs() + 0.1) ** 1.7,
    "reciprocal": lambda t, x: 1 / (x.abs() + 0.5),
    "clamp": lambda t, x: x.clamp(-0.5, 0.8),
    "where": lambda t, x: t.where(x > 0, x * 2, x / 3),
    "masked": lambda t, x: x.masked_fill(x < 0.3, 1.5),
    "mixed": lambda t, x: (x * 3 - 1).tanh() / (x.abs() + 2) + x.sigmoid() * x,
}


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str, shape: tuple[int, ...]) -> None:
    check(ELEMENTWISE[name], spread(*shape))


@pytest.mark.parametrize("name", ["gelu", "tanh", "log", "power", "mixed"])
def test_elementwise_in_double(name: str) -> None:
    check(ELEMENTWISE[name], spread(4, 9, dtype=np.float64), rtol=1e-12, atol=1e-13)


BINARY = {
    "add": lambda t, x, y: x + y,
    "sub": lambda t, x, y: t.sub(x, y, alpha=0.5),
    "mul": lambda t, x, y: x * y,
    "div": lambda t, x, y: x / (y.abs() + 0.5),
    "maximum": lambda t, x, y: t.maximum(x, y),
    "minimum": lambda t, x, y: t.minimum(x, y),
    "lerp": lambda t, x, y: t.lerp(x, y, 0.3),
}


@pytest.mark.parametrize(
    "shapes", [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((5,), ()), ((0, 3), (3,))], ids=str
)
@pytest.mark.parametrize("name", BINARY)
def test_binary_with_broadcasting(name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    check(BINARY[name], floats(*shapes[0]), floats(*shapes[1], seed=1))


@pytest.mark.parametrize(
    "kinds", [("i4", "f4"), ("i8", "i4"), ("u1", "i4"), ("?", "f4"), ("?", "i8"), ("f4", "f8")], ids=str
)
def test_promotion(kinds: tuple[str, str]) -> None:
    a, b = np.arange(6).astype(kinds[0]), (np.arange(6) * 2 + 1).astype(kinds[1])
    for function in (lambda t, x, y: x + y, lambda t, x, y: x * y, lambda t, x, y: x / y, lambda t, x, y: x + 1.5):
        check(function, a, b)


REDUCTIONS = {
    "sum": lambda t, x: x.sum(),
    "sum_dim": lambda t, x: x.sum(dim=1),
    "sum_keep": lambda t, x: x.sum((0, -1), keepdim=True),
    "mean": lambda t, x: x.mean(dim=-1),
    "var": lambda t, x: x.var(dim=1),
    "std_biased": lambda t, x: x.std(dim=0, unbiased=False),
    "amax": lambda t, x: x.amax(dim=1),
    "max": lambda t, x: x.max(),
    "max_dim": lambda t, x: x.max(dim=1).values,
    "argmax": lambda t, x: x.argmax(dim=1),
    "min_dim": lambda t, x: x.min(dim=0).values,
    "prod": lambda t, x: x.prod(dim=1),
    "logsumexp": lambda t, x: t.logsumexp(x, dim=1),
    "norm": lambda t, x: x.norm(),
    "softmax": lambda t, x: F(t).softmax(x, dim=1),
    "softmin": lambda t, x: F(t).softmin(x, dim=1),
    "normalize": lambda t, x: F(t).normalize(x, dim=1),
    "log_softmax": lambda t, x: F(t).log_softmax(x, dim=-1),
}


REDUCED = [(3, 5), (1, 1), (17, 33), (2, 7, 4)]
# A variance of one number is not finite, and its gradient means nothing.
CASES = [
    (name, shape) for name in REDUCTIONS for shape in REDUCED if shape != (1, 1) or name not in ("var", "std_biased")
]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_reductions(name: str, shape: tuple[int, ...]) -> None:
    check(REDUCTIONS[name], spread(*shape), rtol=1e-4, atol=1e-5)


SHAPING = {
    "reshape": lambda t, x: x.reshape(4, -1) * 2,
    "permute": lambda t, x: x.permute(2, 0, 1),
    "transpose": lambda t, x: x.transpose(0, 2).contiguous(),
    "slices": lambda t, x: x[1:, ::2, -1],
    "none_and_ellipsis": lambda t, x: x[..., None, 1],
    "integers": lambda t, x: x[[1, 0, 1]],
    "mask_product": lambda t, x: x * (x > 0),
    "cat": lambda t, x: t.cat([x, x * 2, x[:, :1]], dim=1),
    "stack": lambda t, x: t.stack([x, -x], dim=1),
    "split": lambda t, x: x.split(2, dim=1)[1],
    "chunk": lambda t, x: x.chunk(2, dim=2)[0],
    "expand": lambda t, x: x[:, :1].expand(-1, 4, -1),
    "repeat": lambda t, x: x.repeat(1, 2, 1),
    "flip": lambda t, x: x.flip(0, 2),
    "roll": lambda t, x: x.roll(1, 2),
    "pad": lambda t, x: F(t).pad(x, (1, 2, 0, 1), value=0.5),
    "squeeze": lambda t, x: x[:1].squeeze(0).unsqueeze(-1),
    "tril": lambda t, x: t.tril(x[0]),
}


@pytest.mark.parametrize("name", SHAPING)
def test_shaping(name: str) -> None:
    check(SHAPING[name], floats(2, 3, 4))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 5)),
        ((4,), (4,)),
        ((3, 4), (4,)),
        ((4,), (4, 2)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (3, 4, 2)),
        ((33, 65), (65, 17)),
    ],
    ids=str,
)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check(lambda t, x, y: x @ y, floats(*a), floats(*b, seed=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 4), (4,)], ids=str)
def test_linear(shape: tuple[int, ...]) -> None:
    check(lambda t, x, w, b: F(t).linear(x, w, b), floats(*shape), floats(6, 4), floats(6), rtol=1e-4, atol=1e-5)


CONVOLUTIONS = [
    {},
    {"stride": 2},
    {"padding": 1},
    {"padding": (2, 1), "stride": (2, 3)},
    {"dilation": 2},
    {"padding": "same"},
    {"groups": 2},
    {"groups": 4, "padding": 1, "stride": 2, "dilation": (1, 2)},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_conv2d(options: dict[str, Any], batch: int) -> None:
    groups = options.get("groups", 1)
    x, w, b = floats(batch, 4, 9, 8), floats(8, 4 // groups, 3, 3), floats(8)
    check(lambda t, x, w, b: F(t).conv2d(x, w, b, **options), x, w, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2}], ids=str)
def test_conv1d(options: dict[str, Any]) -> None:
    groups = options.get("groups", 1)
    x, w = floats(2, 4, 11), floats(6, 4 // groups, 3)
    check(lambda t, x, w: F(t).conv1d(x, w, **options), x, w, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [(2,), ((2, 3),), (3, 1), (3, 2, 1), (2, 2, 0, 2)],
    ids=str,
)
def test_max_pool2d(arguments: tuple[Any, ...]) -> None:
    check(lambda t, x: F(t).max_pool2d(x, *arguments), spread(2, 3, 9, 8))


def test_max_pool2d_gives_the_gradient_to_the_first_of_equals() -> None:
    x = np.maximum(floats(2, 2, 6, 6), 0)
    check(lambda t, x: F(t).max_pool2d(x, 2), x)


@pytest.mark.parametrize("arguments", [(2,), ((2, 3), 1), (3, 2, 1), (3, 2, 1, False, False)], ids=str)
def test_avg_pool2d(arguments: tuple[Any, ...]) -> None:
    check(lambda t, x: F(t).avg_pool2d(x, *arguments), floats(2, 3, 9, 8), rtol=1e-4, atol=1e-5)


def test_pooling_in_one_dimension_and_to_a_size() -> None:
    check(lambda t, x: F(t).max_pool1d(x, 3, 2), spread(2, 3, 11))
    check(lambda t, x: F(t).avg_pool1d(x, 3, 2, 1), floats(2, 3, 11), rtol=1e-4, atol=1e-5)
    check(lambda t, x: F(t).adaptive_avg_pool2d(x, (2, 4)), floats(2, 3, 6, 8), rtol=1e-4, atol=1e-5)
    check(lambda t, x: F(t).adaptive_avg_pool2d(x, 1), floats(2, 3, 5, 7), rtol=1e-4, atol=1e-5)


def test_unfold() -> None:
    check(lambda t, x: F(t).unfold(x, (2, 3), padding=1, stride=2), floats(2, 3, 6, 7))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses(reduction: str) -> None:
    x, y = spread(6, 5), floats(6, 5, seed=3)
    labels = np.array([0, 4, 2, 2, 1, 3])
    weight = np.abs(floats(5)) + 0.1
    unit = 1 / (1 + np.exp(-y))
    over_batch = "batchmean" if reduction == "mean" else reduction
    check(lambda t, x, y: F(t).kl_div(F(t).log_softmax(x, 1), y.detach(), reduction=over_batch), x, unit, atol=1e-5)
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        check(lambda t, x, y, name=name: getattr(F(t), name)(x, y, reduction=reduction), x, y, rtol=1e-4, atol=1e-5)
    check(lambda t, x, y: F(t).cross_entropy(x, y, reduction=reduction), x, labels, rtol=1e-4, atol=1e-5)
    check(
        lambda t, x, y, w: F(t).cross_entropy(x, y, weight=w.detach(), ignore_index=2, reduction=reduction),
        x, labels, weight, rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    check(
        lambda t, x, y: F(t).cross_entropy(x, y, label_smoothing=0.1, reduction=reduction),
        x,
        labels,
        rtol=1e-4,
        atol=1e-5,
    )
    check(
        lambda t, x, y: F(t).nll_loss(F(t).log_softmax(x, 1), y, reduction=reduction), x, labels, rtol=1e-4, atol=1e-5
    )
    check(
        lambda t, x, y: F(t).binary_cross_entropy(t.sigmoid(x), y.detach(), reduction=reduction),
        x, unit, rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    check(
        lambda t, x, y: F(t).binary_cross_entropy_with_logits(x, y, reduction=reduction), x, unit, rtol=1e-4, atol=1e-5
    )


def test_cross_entropy_over_images_and_probabilities() -> None:
    x = floats(2, 5, 3, 4)
    labels = np.random.default_rng(0).integers(0, 5, (2, 3, 4))
    check(lambda t, x, y: F(t).cross_entropy(x, y), x, labels, rtol=1e-4, atol=1e-5)
    probabilities = np.full((4, 5), 0.2, np.float32)
    check(lambda t, x, y: F(t).cross_entropy(x, y), floats(4, 5), probabilities, rtol=1e-4, atol=1e-5)


def test_normalisation() -> None:
    x, w, b = floats(4, 3, 5, 6), floats(3), floats(3, seed=1)
    check(lambda t, x, w, b: F(t).batch_norm(x, None, None, w, b, True), x, w, b, rtol=1e-3, atol=1e-4)
    mean, var = floats(3, seed=4), np.abs(floats(3, seed=5)) + 0.5
    check(
        lambda t, x, m, v, w, b: F(t).batch_norm(x, m.detach(), v.detach(), w, b),
        x, mean, var, w, b, rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    check(
        lambda t, x, w, b: F(t).layer_norm(x, (5, 6), w, b), x, floats(5, 6), floats(5, 6, seed=1), rtol=1e-3, atol=1e-4
    )


def test_embedding_and_one_hot() -> None:
    index = np.array([[0, 3, 3], [1, 0, 2]])
    check(lambda t, i, w: F(t).embedding(i, w), index, floats(4, 5))
    check(lambda t, i: F(t).one_hot(i, 5), index)
    check(lambda t, x, i: t.gather(x, 1, i), floats(2, 5), index)
    check(lambda t, x, i: t.index_select(x, 1, i), floats(2, 5), np.array([4, 0, 4]))


def test_every_function_is_compared() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    sampled = {op.name.rpartition(".")[2] for op in OPERATORS}
    names = [name for name in importlib.import_module("graphc.functional").__all__ if name not in sampled]
    assert [name for name in names if f".{name}(" not in text and f'"{name}"' not in text] == []
