"""What users see around the device: mixed precision on it, its memory and events, the command line."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.compiled import target_of
from graphc.errors import UsageError
from tests.cli.running import ROOT, run
from tests.cuda.machine import Machine

MATRIX = np.random.default_rng(5).uniform(0.1, 0.9, (4, 4)).astype(np.float32)
F16, F32 = "torch.float16", "torch.float32"

# By the operand: calls and the dtypes of their results under autocast, as PyTorch's lists for CUDA have them.
OF_FLOAT32: dict[str, tuple[Callable[..., Any], str]] = {
    "mm": (lambda t, x: t.mm(x, x), F16),
    "matmul": (lambda t, x: x @ x, F16),
    "mv": (lambda t, x: t.mv(x, x[0]), F16),
    "addmv": (lambda t, x: t.addmv(x[0], x, x[0]), F16),
    "addr": (lambda t, x: t.addr(x, x[0], x[1]), F16),
    "linear": (lambda t, x: t.nn.functional.linear(x, x, x[0]), F16),
    "conv2d": (lambda t, x: t.conv2d(x[None, None], x[None, None, :2, :2]), F16),
    "einsum": (lambda t, x: t.einsum("ij,jk->ik", x, x), F16),
    "attention": (lambda t, x: t.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]), F16),
    "prelu": (lambda t, x: t.nn.functional.prelu(x, x[0, :1]), F16),
    "lstm_cell": (lambda t, x: t.lstm_cell(x[:1], (x[:1], x[:1]), t.cat([x] * 4), t.cat([x] * 4))[0], F16),
    "gru_cell": (lambda t, x: t.gru_cell(x[:1], x[:1], t.cat([x] * 3), t.cat([x] * 3)), F16),
    "dot": (lambda t, x: t.dot(x[0], x[1]), F32),
    "tensordot": (lambda t, x: t.tensordot(x, x, dims=1), F32),
    "relu": (lambda t, x: t.relu(x), F32),
    "in place": (lambda t, x: x.clone().addmm_(x, x), F32),
}
OF_FLOAT16: dict[str, tuple[Callable[..., Any], str]] = {
    "exp": (lambda t, x: t.exp(x), F32),
    "log": (lambda t, x: t.log(x), F32),
    "pow": (lambda t, x: x**2, F32),
    "rpow": (lambda t, x: 2**x, F32),
    "reciprocal": (lambda t, x: t.reciprocal(x), F32),
    "1 / x": (lambda t, x: 1 / x, F32),
    "rsqrt": (lambda t, x: t.rsqrt(x), F32),
    "tan": (lambda t, x: t.tan(x), F32),
    "sum": (lambda t, x: x.sum(), F32),
    "sum in float16": (lambda t, x: t.sum(x, 1, dtype=t.float16), F16),
    "prod": (lambda t, x: t.prod(x, 1), F32),
    "cumsum": (lambda t, x: t.cumsum(x, 0), F32),
    "norm": (lambda t, x: t.norm(x), F32),
    "softmax": (lambda t, x: t.softmax(x, 1), F32),
    "log_softmax": (lambda t, x: t.log_softmax(x, 1), F32),
    "layer_norm": (lambda t, x: t.nn.functional.layer_norm(x, (4,)), F32),
    "group_norm": (lambda t, x: t.nn.functional.group_norm(x, 2), F32),
    "softplus": (lambda t, x: t.nn.functional.softplus(x), F32),
    "mse": (lambda t, x: t.nn.functional.mse_loss(x, x * 2), F32),
    "cross_entropy": (lambda t, x: t.nn.functional.cross_entropy(x, t.arange(4, device=x.device)), F32),
    "cosine_similarity": (lambda t, x: t.cosine_similarity(x, x * 2), F32),
    "interpolate": (lambda t, x: t.nn.functional.interpolate(x[None, None], scale_factor=2), F32),
    "cdist": (lambda t, x: t.cdist(x, x), F32),
    "mean": (lambda t, x: x.mean(), F16),
    "sigmoid": (lambda t, x: t.sigmoid(x), F16),
    "cat": (lambda t, x: t.cat([x, x]), F16),
    "addcmul with float32": (lambda t, x: t.addcmul(x, x, x.float()), F32),
    "scatter_add": (lambda t, x: t.scatter_add(x, 0, t.zeros_like(x, dtype=t.int64), x.float()), F32),
    "in place": (lambda t, x: x.clone().exp_(), F16),
}
CASES = [
    pytest.param(kind, *case, id=f"{kind}-{name}")
    for kind, table in (("float32", OF_FLOAT32), ("float16", OF_FLOAT16))
    for name, case in table.items()
]


def _under_autocast(t: Any, call: Callable[..., Any], kind: str) -> tuple[str, np.ndarray]:
    x = t.tensor(MATRIX).to("cuda", getattr(t, kind))
    with t.autocast("cuda"):
        made = call(t, x)
    return str(made.dtype), made.cpu().float().numpy()


@pytest.mark.parametrize(("kind", "call", "wanted"), CASES)
def test_lists_of_autocast(cuda: Machine, kind: str, call: Callable[..., Any], wanted: str) -> None:
    """Dtypes by the lists; where PyTorch has the device too, its dtypes and values."""
    dtype, values = _under_autocast(graphc, call, kind)
    assert dtype == wanted
    try:
        torch: Any = importlib.import_module("torch")
    except ModuleNotFoundError:
        return
    if cuda.driver is None and torch.cuda.is_available():
        theirs, expected = _under_autocast(torch, call, kind)
        assert dtype == theirs
        np.testing.assert_allclose(values, expected, rtol=0.02, atol=0.02)


def test_what_autocast_refuses(cuda: Machine) -> None:
    x = graphc.tensor(MATRIX).to("cuda")
    with graphc.autocast("cuda"), pytest.raises(RuntimeError, match="unsafe to autocast"):
        graphc.nn.functional.binary_cross_entropy(x, x)
    with graphc.autocast("cuda"), pytest.raises(UsageError, match="Unexpected floating ScalarType"):
        graphc.addcmul(x.half(), x.bfloat16(), x.half())


def test_mixed_precision_trains_and_leaves_out_what_overflows(cuda: Machine) -> None:
    weight = graphc.nn.Parameter(graphc.tensor(MATRIX).to("cuda"))
    optimizer = graphc.optim.SGD([weight], lr=0.1)
    scaler = graphc.amp.GradScaler(init_scale=1024.0, growth_interval=2)
    x, losses, scales = graphc.tensor(MATRIX).to("cuda"), [], []
    for step in range(6):
        optimizer.zero_grad()
        with graphc.autocast("cuda"):
            loss = (x @ weight).float().square().mean() * (float("inf") if step == 2 else 1.0)
        scaler.scale(loss).backward()
        before = weight.detach().cpu()
        scaler.step(optimizer)
        scaler.update()
        assert graphc.equal(before, weight.detach().cpu()) == (step == 2)
        losses.append(loss.item())
        scales.append(scaler.get_scale())
    assert losses[-1] < losses[0] and weight.grad.is_cuda
    assert scales == [1024, 2048, 1024, 1024, 2048, 2048]


def test_a_compiled_step_of_mixed_precision_is_replayed(cuda: Machine) -> None:
    weight = graphc.nn.Parameter(graphc.tensor(MATRIX).to("cuda"))
    optimizer = graphc.optim.SGD([weight], lr=0.1, momentum=0.9)
    scaler = graphc.amp.GradScaler(init_scale=1024.0)
    x = graphc.tensor(MATRIX).to("cuda")

    @graphc.compile
    def step(x: Any, factor: Any) -> Any:
        optimizer.zero_grad()
        with graphc.autocast("cuda"):
            loss = (x @ weight).float().square().mean() * factor
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    before = graphc.counters()["replays"]
    losses = [
        step(x, graphc.tensor(factor, device="cuda")).item() for factor in (1.0, 1.0, 1.0, float("inf"), 1.0, 1.0)
    ]
    assert losses[3] == float("inf") and losses[-1] < losses[2] < losses[0]
    assert scaler.get_scale() == 512 and graphc.counters()["replays"] >= before + 3


def test_memory_and_events(cuda: Machine) -> None:
    graphc.cuda.synchronize()
    graphc.cuda.reset_peak_memory_stats()
    before = graphc.cuda.memory_allocated()
    x = graphc.ones(256, 1024, device="cuda")
    start, end = (graphc.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    y = x + 1
    end.record()
    end.synchronize()
    assert end.query()
    start.elapsed_time(end)  # both are there
    held = graphc.cuda.memory_allocated() - before
    assert held >= 1 << 20 and graphc.cuda.max_memory_allocated() >= held
    assert y.sum().item() == 2 * 256 * 1024


def test_doctor_runs_a_kernel_on_each_device(cuda: Machine) -> None:
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json").stdout)["checks"]}
    found = checks["cuda:0"]
    assert found["status"] == "ok" and graphc.cuda.get_device_name(0) in found["value"]
    assert "a small kernel compiles, runs and is right" in found["value"] and checks["cuda compiler"]["status"] == "ok"
    assert ("; wgmma: " in found["value"]) == (target_of("cuda:0").cpu == "sm_90")


@pytest.mark.slow  # tests/cuda/test_lenet.py trains it too
def test_train_lenet(cuda: Machine) -> None:
    """One epoch of two steps on the device and on the CPU."""
    arguments = ("train", "lenet", "--epochs", "1", "--batch-size", "700", "--json")
    found, wanted = (run(*arguments, "--device", device) for device in ("cuda", "cpu"))
    assert found.exit_code == 0, found.stderr
    ours, theirs = json.loads(found.stdout), json.loads(wanted.stdout)
    assert ours["device"] == "cuda" and ours["peak_bytes"] > 1 << 20
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
    assert ours["test_accuracy"] == pytest.approx(theirs["test_accuracy"], abs=0.02)


def test_profile(cuda: Machine) -> None:
    arguments = ("--args", "x=f32[2,1,32,32]", "--device", "cuda", "--runs", "2")
    result = run("profile", f"{ROOT / 'examples' / 'lenet.py'}:Net", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    (profile,) = json.loads(result.stdout)["profiles"]
    assert profile["seconds"] > 0 and len(profile["steps"]) >= 5
    assert all(step["seconds"] >= 0 for step in profile["steps"])
    assert any("contract" in step["operators"] and step["flops"] > 0 and step["lines"] for step in profile["steps"])


def test_devices_that_are_not_there(cuda: Machine) -> None:
    for verb in (("train", "lenet"), ("profile", f"{ROOT / 'examples' / 'lenet.py'}:Net")):
        result = run(*verb, "--device", "cuda:99")
        assert result.exit_code == 2 and "unknown device 'cuda:99'" in result.stderr and "cuda:0" in result.stderr
