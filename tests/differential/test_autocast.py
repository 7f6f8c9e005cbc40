"""Autocast on the CPU side by side with PyTorch's: dtypes and values of results, dtypes of gradients, nesting."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.tensors.casting import OPEN, casting_as
from graphc.tensors.casting_lists import LISTS, REFUSED
from tests.differential.compare import kind_of, message, torch

RNG = np.random.default_rng(3)
MATRIX, IMAGE, VOLUME = (
    RNG.standard_normal(shape).astype(np.float32) for shape in ((6, 6), (2, 3, 8, 8), (2, 2, 4, 4, 4))
)
POSITIVE = (MATRIX @ MATRIX.T + 6 * np.eye(6)).astype(np.float32)

# By the kind of operand: float32 ones for what runs in lower precision, bfloat16 ones for what runs in float32.
LOWER: dict[str, Callable[..., Any]] = {
    "mm": lambda t, x, v: t.mm(x, x),
    "matmul": lambda t, x, v: x @ x.T,
    "matmul with a vector": lambda t, x, v: t.matmul(x, x[0]),
    "mv": lambda t, x, v: t.mv(x, x[0]),
    "bmm": lambda t, x, v: t.bmm(v[0], v[0]),
    "addmm": lambda t, x, v: t.addmm(x, x, x, beta=0.5),
    "addmv": lambda t, x, v: t.addmv(x[0], x, x[0]),
    "addbmm": lambda t, x, v: t.addbmm(v[0, 0], v[0], v[0]),
    "baddbmm": lambda t, x, v: t.baddbmm(v[0], v[0], v[0]),
    "linear": lambda t, x, v: t.nn.functional.linear(x, x, x[0]),
    "linear of three dimensions": lambda t, x, v: t.nn.functional.linear(v[0], v[0, 0]),
    "conv1d": lambda t, x, v: t.conv1d(v[0], v[1]),
    "conv2d": lambda t, x, v: t.nn.functional.conv2d(v, v[:2, :, :3, :3], x[0, :2], padding=1),
    "conv_transpose2d": lambda t, x, v: t.conv_transpose2d(v[:, :2], v[:, :2, :3, :3]),
    "einsum": lambda t, x, v: t.einsum("ij,kj->ik", x, x),
    "inner": lambda t, x, v: t.inner(x, x),
    "dot": lambda t, x, v: t.dot(x[0], x[1]),
    "tensordot": lambda t, x, v: t.tensordot(x, x, dims=1),
    "multi_dot": lambda t, x, v: t.linalg.multi_dot([x, x, x]),
    "matrix_power": lambda t, x, v: t.linalg.matrix_power(x, 2),
    "vecdot": lambda t, x, v: t.linalg.vecdot(x, x),
    "prelu": lambda t, x, v: t.nn.functional.prelu(x, x[0, :1]),
    "attention": lambda t, x, v: t.nn.functional.scaled_dot_product_attention(v, v, v),
    "bilinear": lambda t, x, v: t.nn.functional.bilinear(x, x, v[0, :, :6, :6]),
    "outer": lambda t, x, v: t.outer(x[0], x[0]),
    "relu and sum": lambda t, x, v: (t.relu(x) * 2).sum(0),
    "in place": lambda t, x, v: x.clone().addmm_(x, x),
    "into a tensor": lambda t, x, v: t.mm(x.detach(), x.detach(), out=t.zeros(6, 6)),
    "an rnn cell": lambda t, x, v: t.rnn_tanh_cell(x, x, x, x, x[0], x[1]),
    "a gru cell": lambda t, x, v: t.gru_cell(x[:, :2], x[:, :2], x[:, :2], x[:, :2]),
}

SINGLE: dict[str, Callable[..., Any]] = {
    "mse": lambda t, x, v: t.nn.functional.mse_loss(x, x * 2),
    "l1": lambda t, x, v: t.nn.functional.l1_loss(x, x * 2),
    "smooth_l1": lambda t, x, v: t.nn.functional.smooth_l1_loss(x, x * 2),
    "huber": lambda t, x, v: t.nn.functional.huber_loss(x, x * 2),
    "cross_entropy": lambda t, x, v: t.nn.functional.cross_entropy(x, t.arange(6)),
    "nll": lambda t, x, v: t.nn.functional.nll_loss(x, t.arange(6)),
    "kl_div": lambda t, x, v: t.nn.functional.kl_div(x, x * 2, log_target=True, reduction="sum"),
    "bce": lambda t, x, v: t.nn.functional.binary_cross_entropy(t.sigmoid(x), t.sigmoid(x).detach()),
    "bce with logits": lambda t, x, v: t.nn.functional.binary_cross_entropy_with_logits(x, t.sigmoid(x).detach()),
    "hinge": lambda t, x, v: t.nn.functional.hinge_embedding_loss(x, t.ones(6, 6)),
    "margin": lambda t, x, v: t.nn.functional.margin_ranking_loss(x, x * 2, t.ones(6, 6)),
    "soft margin": lambda t, x, v: t.nn.functional.soft_margin_loss(x, t.ones(6, 6)),
    "multi margin": lambda t, x, v: t.nn.functional.multi_margin_loss(x, t.arange(6)),
    "poisson": lambda t, x, v: t.nn.functional.poisson_nll_loss(x, x.detach() * 2),
    "triplet": lambda t, x, v: t.nn.functional.triplet_margin_loss(x, x * 2, x * 3),
    "cosine": lambda t, x, v: t.nn.functional.cosine_embedding_loss(x, x * x, t.ones(6)),
    "prod": lambda t, x, v: t.prod(x, 1),
    "trace": lambda t, x, v: x.trace(),
    "cdist": lambda t, x, v: t.cdist(x, x * 2),
    "quantile": lambda t, x, v: t.quantile(x, 0.5, dim=1),
    "reflect": lambda t, x, v: t.nn.functional.pad(v, (1, 2, 1, 2), mode="reflect"),
    "replicate": lambda t, x, v: t.nn.functional.pad(v, (1, 2, 1, 2), mode="replicate"),
    "circular": lambda t, x, v: t.nn.functional.pad(v, (1, 2, 1, 2), mode="circular"),
    "zeros": lambda t, x, v: t.nn.functional.pad(v, (1, 2, 1, 2)),
    "grid_sample": lambda t, x, v: t.nn.functional.grid_sample(v, v[:, :2].movedim(1, -1), align_corners=False),
    "interpolate": lambda t, x, v: t.nn.functional.interpolate(v, scale_factor=2, mode="nearest"),
    "avg_pool2d": lambda t, x, v: t.nn.functional.avg_pool2d(v, 2),
    "softmax": lambda t, x, v: t.softmax(x, 1),
    "layer_norm": lambda t, x, v: t.nn.functional.layer_norm(x, (6,)),
    "exp": lambda t, x, v: t.exp(x),
    "pow": lambda t, x, v: x**2,
}

BOTH: dict[str, Callable[..., Any]] = {
    "cat": lambda t, x, h: t.cat([x, h]),
    "cat of halves": lambda t, x, h: t.cat([h, h]),
    "cat of integers": lambda t, x, h: t.cat([x.int(), h]),
    "cat of doubles": lambda t, x, h: t.cat([x.double(), h]),
    "cat of both halves": lambda t, x, h: t.cat([x.half(), h]),
    "stack": lambda t, x, h: t.stack([h, x]),
    "hstack": lambda t, x, h: t.hstack([h, x]),
    "add": lambda t, x, h: x + h,
    "mm": lambda t, x, h: x @ h,
    "mm with the other half": lambda t, x, h: x.half() @ h,
    "mm with doubles": lambda t, x, h: x.double() @ h,
    "mm of doubles": lambda t, x, h: x.double() @ x.double(),
    "mm of integers": lambda t, x, h: x.int() @ x.int(),
    "mse": lambda t, x, h: t.nn.functional.mse_loss(h, x),
    "index_copy": lambda t, x, h: t.index_copy(x, 0, t.tensor([0]), h[:1]),
    "inverse": lambda t, x, h: t.linalg.inv((x @ x.T + 6 * t.eye(6)).to(h.dtype)),
    "no gradients": lambda t, x, h: t.mm(x.detach(), h.detach()),
}


def _outcome(library: Any, call: Callable[..., Any], dtype: str, operands: list[Any], region: dict[str, Any]) -> Any:
    """Dtype and values of the result and of the gradients, or the error."""
    tensors = [library.tensor(array).to(getattr(library, kind)).requires_grad_() for array, kind in operands]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with library.autocast("cpu", getattr(library, dtype), **region):
                made = call(library, *tensors)
        except Exception as error:
            return kind_of(error), message(error)
    found = [made]
    if made.requires_grad:
        weights = library.linspace(0.5, 1.5, made.numel()).reshape(made.shape)
        (made.float() * weights).sum().backward()
        found += [t.grad for t in tensors]
    return [None if f is None else (str(f.dtype), f.detach().double().numpy()) for f in found]


def _compare(
    call: Callable[..., Any], dtype: str, operands: list[Any], close: float, region: dict[str, Any] | None = None
) -> None:
    wanted = _outcome(torch, call, dtype, operands, region or {})
    found = _outcome(graphc, call, dtype, operands, region or {})
    if isinstance(wanted, tuple):
        assert isinstance(found, tuple) and found[0] == wanted[0] and wanted[1] in found[1], (found, wanted)
        return
    assert not isinstance(found, tuple), found
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours[0] == theirs[0].replace("torch", "graphc").replace("graphc.", "torch.")
            scale = max(1e-3, float(np.abs(theirs[1]).max(initial=0)))
            np.testing.assert_allclose(ours[1], theirs[1], rtol=close, atol=close * scale)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", LOWER)
def test_functions_of_lower_precision(name: str, dtype: str) -> None:
    _compare(LOWER[name], dtype, [(MATRIX, "float32"), (IMAGE, "float32")], 0.05)


@pytest.mark.parametrize("name", SINGLE)
def test_functions_of_float32(name: str) -> None:
    _compare(SINGLE[name], "bfloat16", [(MATRIX, "bfloat16"), (IMAGE, "bfloat16")], 0.05)


@pytest.mark.parametrize("name", BOTH)
def test_functions_of_several_dtypes(name: str) -> None:
    _compare(BOTH[name], "bfloat16", [(MATRIX, "float32"), (MATRIX, "bfloat16")], 0.05)


@pytest.mark.parametrize("region", [{"enabled": False}, {"cache_enabled": False}])
def test_regions_that_are_off_or_without_cache(region: dict[str, Any]) -> None:
    _compare(LOWER["linear"], "bfloat16", [(MATRIX, "float32"), (IMAGE, "float32")], 0.05, region)


@pytest.mark.parametrize("layer", ["TransformerEncoderLayer", "MultiheadAttention", "Conv2d", "RNN", "GRU"])
def test_layers(layer: str) -> None:
    found: dict[str, list[Any]] = {}
    weights: dict[str, np.ndarray] = {}
    torch.manual_seed(0)
    for t in (torch, graphc):
        made = {
            "TransformerEncoderLayer": lambda t=t: t.nn.TransformerEncoderLayer(
                8, 2, 16, dropout=0.0, batch_first=True
            ),
            "MultiheadAttention": lambda t=t: t.nn.MultiheadAttention(8, 2, batch_first=True),
            "Conv2d": lambda t=t: t.nn.Conv2d(3, 4, 3),
            "RNN": lambda t=t: t.nn.RNN(8, 4),
            "GRU": lambda t=t: t.nn.GRU(8, 4),
        }[layer]()
        weights = weights or {name: p.detach().numpy() for name, p in made.named_parameters()}
        made.load_state_dict({name: t.tensor(value) for name, value in weights.items()})
        x = t.tensor(IMAGE if layer == "Conv2d" else IMAGE[:, 0]).requires_grad_()
        with t.autocast("cpu"):
            out = made(x, x, x)[0] if layer == "MultiheadAttention" else made(x)
            out = out[0] if isinstance(out, tuple) else out
            # Not zeros: the squares of what is normalised sum up to a constant.
            target = t.linspace(-1, 1, out.numel()).reshape(out.shape)
            loss = t.nn.functional.mse_loss(out, target)
        loss.backward()
        kinds = [str(out.dtype), str(loss.dtype), str(x.grad.dtype), *{str(p.grad.dtype) for p in made.parameters()}]
        found[t.__name__] = [kinds, out.detach().float().numpy(), x.grad.numpy()]
    assert found["graphc"][0] == found["torch"][0]
    for ours, theirs in zip(found["graphc"][1:], found["torch"][1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.1, atol=0.03 * float(np.abs(theirs).max()))


def test_a_network_trains_as_pytorchs() -> None:
    found: dict[str, Any] = {}
    weights: dict[str, np.ndarray] = {}
    for t in (torch, graphc):
        nn = t.nn
        net = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.LayerNorm(36), nn.Linear(36, 5)),
        )
        weights = weights or {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
        net.load_state_dict({name: t.tensor(value) for name, value in weights.items()}, strict=False)
        optimizer = t.optim.SGD(net.parameters(), lr=0.1)
        x, y, losses = t.tensor(IMAGE), t.tensor([1, 3]), []
        for _ in range(6):
            optimizer.zero_grad()
            with t.autocast("cpu"):
                loss = t.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        found[t.__name__] = losses
    assert found["torch"][-1] < 0.5 * found["torch"][0]
    np.testing.assert_allclose(found["graphc"], found["torch"], rtol=0.05, atol=0.02)


def test_regions_nest_and_end_with_an_error() -> None:
    def facts(t: Any) -> list[Any]:
        return [t.is_autocast_enabled("cpu"), str(t.get_autocast_dtype("cpu")), t.is_autocast_cache_enabled()]

    found: dict[str, list[Any]] = {}
    for t in (torch, graphc):
        seen = found[t.__name__] = [facts(t)]
        with t.autocast("cpu", t.float16, cache_enabled=False):
            seen.append(facts(t))
            with t.autocast("cpu", enabled=False):
                seen.append(facts(t))
                seen.append(str(t.mm(t.ones(2, 2), t.ones(2, 2)).dtype))
            seen.append(facts(t))
            with pytest.raises(ValueError), t.amp.autocast("cpu", t.bfloat16):
                raise ValueError
            seen.append(facts(t))
        seen.append(facts(t))
    assert found["graphc"] == found["torch"]
    assert not OPEN


CALLS: dict[str, Callable[[Any], Any]] = {
    "an unknown device": lambda t: t.autocast("xyz"),
    "a device without autocast": lambda t: t.autocast("meta"),
    "a number": lambda t: t.autocast(3),
    "available": lambda t: [t.amp.is_autocast_available(d) for d in ("cpu", "cuda", "xpu", "meta")],
    "available where": lambda t: t.amp.is_autocast_available("xyz"),
    "dtypes": lambda t: [str(t.get_autocast_dtype(d)) for d in ("cpu", "cuda", "xpu", "hpu", "mps")],
    "dtype of none": lambda t: t.get_autocast_dtype("meta"),
    "enabled without autocast": lambda t: t.is_autocast_enabled("meta"),
    "enabled by a number": lambda t: t.is_autocast_enabled(3),
    "enabled": lambda t: [t.is_autocast_enabled(), t.is_autocast_enabled("cpu"), t.is_autocast_cpu_enabled()],
    "set by a number": lambda t: t.set_autocast_enabled("cpu", 3),
    "dtype by a number": lambda t: t.set_autocast_dtype("cpu", 3),
    "cache by a number": lambda t: t.set_autocast_cache_enabled(3),
    "nesting": lambda t: [t.autocast_increment_nesting(), t.autocast_decrement_nesting(), t.clear_autocast_cache()],
    "a decorator of a number": lambda t: t.autocast("cpu")(3),
    "float32 is refused": lambda t: t.autocast("cpu", t.float32)._enabled,
    "cuda where there is none": lambda t: t.autocast("cuda")._enabled,
    "older dtypes": lambda t: [str(t.get_autocast_cpu_dtype()), str(t.get_autocast_gpu_dtype())],
}


@pytest.mark.parametrize("name", CALLS)
def test_facts_and_refusals(name: str) -> None:
    outcomes = []
    for library in (torch, graphc):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                result: Any = CALLS[name](library)
            except Exception as error:
                result = kind_of(error), " ".join(message(error).split())
        outcomes.append((result, [str(w.message) for w in told if w.category is UserWarning]))
    assert outcomes[1] == outcomes[0]


def test_switched_on_for_the_thread_that_says_so() -> None:
    seen: list[str] = []

    def other() -> None:
        seen.append(str(graphc.mm(graphc.ones(2, 2), graphc.ones(2, 2)).dtype))

    graphc.set_autocast_enabled("cpu", True)
    try:
        assert graphc.mm(graphc.ones(2, 2), graphc.ones(2, 2)).dtype is graphc.bfloat16
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    finally:
        graphc.set_autocast_enabled("cpu", False)
    assert seen == ["torch.float32"] and not OPEN


def test_a_decorated_forward_and_custom_functions() -> None:
    found: dict[str, Any] = {}
    for t in (torch, graphc):

        class Times(t.autograd.Function):
            @staticmethod
            @t.amp.custom_fwd(device_type="cpu", cast_inputs=t.float32)
            def forward(ctx: Any, x: Any, w: Any) -> Any:
                ctx.save_for_backward(x, w)
                return x @ w

            @staticmethod
            @t.amp.custom_bwd(device_type="cpu")
            def backward(ctx: Any, g: Any) -> Any:
                x, w = ctx.saved_tensors
                return g @ w.T, x.T @ g

        @t.autocast("cpu")
        def forward(x: Any, times: Any = Times, t: Any = t) -> Any:
            return x @ x, times.apply(x.to(t.bfloat16), x)

        x = t.tensor(MATRIX).requires_grad_()
        low, exact = forward(x)
        (low.float().sum() + exact.sum()).backward()
        found[t.__name__] = [str(low.dtype), str(exact.dtype), str(x.grad.dtype)], x.grad.numpy()
    assert found["graphc"][0] == found["torch"][0]
    np.testing.assert_allclose(found["graphc"][1], found["torch"][1], rtol=0.05, atol=0.05)


def test_a_compiled_function_is_one_in_each_state() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        return x @ x

    x = graphc.tensor(MATRIX)
    kinds = [f(x).dtype]
    for dtype in (graphc.bfloat16, graphc.float16, graphc.bfloat16):
        with graphc.autocast("cpu", dtype):
            kinds.append(f(x).dtype)
    kinds.append(f(x).dtype)
    assert kinds == [graphc.float32, graphc.bfloat16, graphc.float16, graphc.bfloat16, graphc.float32]


def test_a_region_inside_a_compiled_function_is_replayed() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        with graphc.autocast("cpu"):
            y = x @ x
        return y

    x = graphc.tensor(MATRIX)
    first, before = f(x), graphc.counters()["replays"]
    again = f(x)
    assert graphc.counters()["replays"] == before + 1
    assert again.dtype is graphc.bfloat16 and graphc.equal(first, again)


def test_checkpoints_run_again_as_they_ran_first() -> None:
    kinds: list[Any] = []

    def layer(x: Any) -> Any:
        y = x @ x
        kinds.append(y.dtype)
        return y.float()

    for reentrant in (False, True):
        x = graphc.tensor(MATRIX).requires_grad_()
        with graphc.autocast("cpu"):
            y = graphc.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)
        y.sum().backward()
    assert set(kinds) == {graphc.bfloat16} and len(kinds) == 4


def test_lists_of_cuda_name_functions_that_exist() -> None:
    """What the lists say of other devices takes effect by the device of the first operand."""
    x = graphc.tensor(MATRIX)
    with casting_as((("cuda", graphc.float16.ir),)):
        assert graphc.mm(x, x).dtype is graphc.float32
    assert not OPEN


def test_every_name_of_the_lists_is_a_function() -> None:
    places = (graphc, graphc.nn.functional, graphc.linalg)
    ours = {"mirrored_pad", "rdiv"}  # parts of `pad` and of `/`
    names = {name for table in LISTS.values() for name in table} | {name for t in REFUSED.values() for name in t}
    assert {name for name in names if not any(hasattr(place, name) for place in places)} == ours
