"""Operators on CUDA tensors give what they give on the CPU, and refuse tensors of several devices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.functional as F
from graphc import linalg

pytestmark = pytest.mark.usefixtures("cuda")

A = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
B = np.random.default_rng(1).uniform(0.5, 2, (4, 6)).astype(np.float32)
Operation = Callable[[Any, Any], Any]

OPERATIONS: list[Operation] = [
    lambda x, y: x + y * 2 - 1,
    lambda x, y: torch.where(x > 0, x, y),
    lambda x, y: torch.where(x > 0, 1.0, 0.0),
    lambda x, y: x.clamp(-0.5, 0.5).exp().log1p(),
    lambda x, y: torch.lerp(x, y, 0.25),
    lambda x, y: torch.addcmul(x, x, y, value=0.5),
    lambda x, y: x.sum(1) + y.mean(1) + x.amax(1),
    lambda x, y: torch.var_mean(x, dim=0),
    lambda x, y: x @ y.t(),
    lambda x, y: torch.einsum("ij,kj->ik", x, y),
    lambda x, y: torch.cat([x, y], 0)[::2],
    lambda x, y: torch.stack([x, y]).permute(2, 0, 1).reshape(-1),
    lambda x, y: x.sort(dim=1),
    lambda x, y: x.topk(2, dim=1),
    lambda x, y: x.argmax(1),
    lambda x, y: x.cumsum(1) + y.cumprod(1),
    lambda x, y: x.nonzero(),
    lambda x, y: x[x > 0],
    lambda x, y: torch.masked_select(y, x < 0),
    lambda x, y: torch.unique((y * 2).int(), return_counts=True),
    lambda x, y: torch.searchsorted(y.sort(1).values, x.contiguous()),
    lambda x, y: torch.bincount((y * 2).long().reshape(-1)),
    lambda x, y: torch.histc(x, bins=5),
    lambda x, y: torch.quantile(x, 0.3),
    lambda x, y: torch.repeat_interleave(x, 2, dim=1),
    lambda x, y: x.tril() + y.triu(1),
    lambda x, y: torch.diag_embed(x).diagonal(dim1=1, dim2=2),
    lambda x, y: torch.view_copy(x, torch.int32) if hasattr(torch, "view_copy") else x,
    lambda x, y: x.view(torch.int32),
    lambda x, y: x.as_strided((2, 3), (6, 2), 1),
    lambda x, y: x.unfold(1, 3, 2),
    lambda x, y: x.softmax(1) * y.log_softmax(0),
    lambda x, y: F.layer_norm(x, (6,)),
    lambda x, y: F.gelu(x) + F.silu(y),
    lambda x, y: F.cross_entropy(x, torch.tensor([0, 5, 2, 3], device=x.device)),
    lambda x, y: F.cross_entropy(x, torch.tensor([0, 5, 2, 3], device=x.device), label_smoothing=0.1),
    lambda x, y: F.mse_loss(x, y) + F.smooth_l1_loss(x, y),
    lambda x, y: F.multi_margin_loss(x, torch.tensor([0, 5, 2, 3], device=x.device)),
    lambda x, y: F.multilabel_margin_loss(x, torch.full((4, 6), -1, device=x.device)),
    lambda x, y: F.one_hot(torch.tensor([0, 2], device=x.device), 3) + 0 * x[:2, :3].long(),
    lambda x, y: F.embedding(torch.tensor([[0, 3]], device=x.device), x, max_norm=1.0),
    lambda x, y: F.embedding_bag(torch.tensor([0, 3, 1], device=x.device), x, torch.tensor([0, 2], device=x.device)),
    lambda x, y: F.conv2d(x.reshape(1, 1, 4, 6), y[:3, :3].reshape(1, 1, 3, 3), padding=1),
    lambda x, y: F.max_pool2d(x.reshape(1, 1, 4, 6), 2, return_indices=True),
    lambda x, y: F.adaptive_avg_pool1d(x.reshape(1, 4, 6), 4),
    lambda x, y: F.interpolate(x.reshape(1, 1, 4, 6), size=(3, 5), mode="bilinear"),
    lambda x, y: F.grid_sample(x.reshape(1, 1, 4, 6), y.reshape(1, 3, 4, 2) - 1, align_corners=False),
    lambda x, y: F.affine_grid(x[:2, :3].reshape(1, 2, 3), (1, 1, 2, 3), align_corners=False),
    lambda x, y: F.scaled_dot_product_attention(
        x.reshape(1, 4, 6), y.reshape(1, 4, 6), x.reshape(1, 4, 6), is_causal=True
    ),
    lambda x, y: F.pad(x, (1, 2), mode="reflect"),
    lambda x, y: F.ctc_loss(
        x.reshape(4, 1, 6).log_softmax(2), torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2])
    ),
    lambda x, y: linalg.inv(x[:, :4] + 5 * torch.eye(4, device=x.device)),
    lambda x, y: linalg.qr(x),
    lambda x, y: linalg.svdvals(x),
    lambda x, y: linalg.pinv(x),
    lambda x, y: torch.special.i0(x) + torch.special.zeta(y + 1, y),
    lambda x, y: torch.gather(x, 1, torch.tensor([[0], [1], [2], [3]], device=x.device)),
    lambda x, y: x.scatter(1, torch.tensor([[0], [1], [2], [3]], device=x.device), 9.0),
    lambda x, y: x.index_add(0, torch.tensor([0, 0], device=x.device), y[:2]),
    lambda x, y: x.index_select(1, torch.tensor([5, 0], device=x.device)),
    lambda x, y: x.flip(0).roll(1, 1).rot90(),
    lambda x, y: torch.meshgrid(x[0], y[1], indexing="ij")[0],
    lambda x, y: torch.combinations(x[0]),
    lambda x, y: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0], device=x.device)),
    lambda x, y: torch.isclose(x, x + 1e-9) & (x == x),
    lambda x, y: x.half() * 2 + y.bfloat16().float(),
    lambda x, y: x.index_add(0, torch.zeros(0, dtype=torch.int64, device=x.device), y[:0]),
    lambda x, y: x.masked_scatter(x > 99, y) + y.put(torch.zeros(0, dtype=torch.int64, device=x.device), x[0, :0]),
    lambda x, y: F.embedding(torch.zeros(0, dtype=torch.int64, device=x.device), y).sum() + x,
]


def parts(value: Any) -> list[Any]:
    return [p for v in value for p in parts(v)] if isinstance(value, tuple | list) else [value]


@pytest.mark.parametrize("place", range(len(OPERATIONS)))
def test_results_equal_the_cpus(place: int) -> None:
    operation = OPERATIONS[place]
    expected = parts(operation(torch.tensor(A), torch.tensor(B)))
    made = parts(operation(torch.tensor(A, device="cuda"), torch.tensor(B, device="cuda")))
    assert len(made) == len(expected)
    for m, e in zip(made, expected, strict=True):
        assert m.is_cuda and m.dtype == e.dtype
        np.testing.assert_array_equal(m.cpu().float().numpy(), e.float().numpy())


DIFFERENTIABLE = [0, 1, 3, 6, 7, 8, 10, 15, 30, 31, 32, 34, 42, 44, 45, 46, 48, 51, 57, 66, 67, 68]


@pytest.mark.parametrize("place", DIFFERENTIABLE)
def test_gradients_equal_the_cpus(place: int) -> None:
    grads = []
    for device in ("cpu", "cuda:1"):
        x, y = (torch.tensor(a, device=device, requires_grad=True) for a in (A, B))
        total = sum(p.sum() for p in parts(OPERATIONS[place](x, y)) if p.requires_grad)
        total.backward()
        grads.append([None if t.grad is None else t.grad.cpu().numpy() for t in (x, y)])
        assert all(t.grad is None or str(t.grad.device) == device for t in (x, y))
    for on_cpu, on_cuda in zip(*grads, strict=True):
        assert (on_cpu is None) == (on_cuda is None)
        if on_cpu is not None:
            np.testing.assert_array_equal(on_cuda, on_cpu)


MIXED = r"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, y: x + y,
        lambda x, y: y * x,
        lambda x, y: x @ y.t(),
        lambda x, y: torch.where(x > 0, x, y),
        lambda x, y: torch.cat([x, y]),
        lambda x, y: x.add_(y),
        lambda x, y: x.index_select(0, torch.tensor([0, 1])),
        lambda x, y: torch.gather(y, 1, torch.zeros((4, 6), dtype=torch.int64, device="cuda")),
        lambda x, y: F.linear(x, y),
        lambda x, y: F.mse_loss(x, y),
        lambda x, y: torch.equal(x, y),
        lambda x, y: x.lerp(y, 0.5),
    ],
)
def test_two_devices_are_refused_with_the_users_line(operation: Operation) -> None:
    x, y = torch.tensor(A, device="cuda"), torch.tensor(B)
    with pytest.raises(RuntimeError, match=MIXED) as caught:
        operation(x, y)
    assert "test_cuda_operations.py" in str(caught.value)


def test_two_cuda_devices_are_refused() -> None:
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cuda:1!"):
        torch.ones(2, device="cuda:0") + torch.ones(2, device="cuda:1")


def test_numbers_and_0d_tensors_of_the_cpu_go_along() -> None:
    x = torch.tensor([1.0, 2.0], device="cuda")
    two = torch.tensor(2.0)
    for made in (x * 2, 2 * x, x * two, two * x, x.mul(two), torch.where(x > 1, two, x), x.clamp(max=two)):
        assert made.is_cuda
    assert (x * two).tolist() == [2.0, 4.0]
    x.mul_(two)
    assert x.tolist() == [2.0, 4.0]
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu!"):
        torch.tensor([1.0, 2.0]) * torch.tensor(2.0, device="cuda")
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu!"):
        two.add_(torch.tensor(2.0, device="cuda"))


def test_gradients_reach_0d_tensors_of_the_cpu() -> None:
    x, scale = torch.tensor([1.0, 2.0], device="cuda"), torch.tensor(3.0, requires_grad=True)
    (x * scale).sum().backward()
    assert scale.grad is not None and not scale.grad.is_cuda and scale.grad.item() == 3.0


def test_numbers_that_change_make_no_new_programs() -> None:
    x = torch.ones(3, device="cuda")
    seen = []
    for number in (1.5, 2.5, 3.5, 4.5):
        built = torch.counters()["programs_built"]
        assert (x * number).sum().item() == 3 * number
        seen.append(torch.counters()["programs_built"] - built)
    assert seen[2:] == [0, 0]


def test_writes_and_views() -> None:
    for device in ("cpu", "cuda"):
        x = torch.zeros(3, 4, device=device)
        x[1].add_(2)
        x[:, 1:3].mul_(3)
        x.t()[0] = 7
        x.view(-1)[5] = -1
        x[x == 0] = 0.5
        x[[0, 2], [3, 3]] = torch.tensor([8.0, 9.0], device=device)
        x[torch.tensor([2]), 0] = torch.tensor(4.0)
        assert x.tolist() == [[7.0, 0.5, 0.5, 8.0], [7.0, -1.0, 6.0, 2.0], [4.0, 0.5, 0.5, 9.0]]


def test_indices_may_lie_on_the_cpu() -> None:
    x = torch.arange(6.0, device="cuda").reshape(2, 3)
    index, mask = torch.tensor([1, 0]), torch.tensor([True, False])
    assert x[index].tolist() == [[3, 4, 5], [0, 1, 2]] and x[index].is_cuda
    assert x[mask].tolist() == [[0, 1, 2]] and x[:, [0, 2]].tolist() == [[0, 2], [3, 5]]
    with pytest.raises(RuntimeError, match=r"indices should be either on cpu or on the same device .* \(cpu\)"):
        x.cpu()[index.cuda()]
    with pytest.raises(IndexError, match=r"index -?\d+ is out of bounds"):
        x[torch.tensor([0, 2])].sum().item()


@pytest.mark.parametrize(
    "draw",
    [
        lambda d: torch.rand(5, 7, device=d),
        lambda d: torch.randn(33, device=d, dtype=torch.float64),
        lambda d: torch.randint(0, 100, (17,), device=d),
        lambda d: torch.randperm(20, device=d),
        lambda d: torch.normal(1.0, 2.0, (9,), device=d),
        lambda d: torch.rand_like(torch.zeros(4, device=d)),
        lambda d: torch.zeros(6, device=d).normal_().uniform_(-1, 1).exponential_(),
        lambda d: torch.bernoulli(torch.full((8,), 0.5, device=d)),
        lambda d: torch.multinomial(torch.ones(3, 5, device=d), 2),
        lambda d: torch.multinomial(torch.ones(5, device=d), 9, replacement=True),
        lambda d: torch.poisson(torch.full((8,), 3.0, device=d)),
        lambda d: F.dropout(torch.ones(40, device=d), 0.3),
        lambda d: F.dropout2d(torch.ones(2, 3, 2, 2, device=d), 0.5),
        lambda d: torch.nn.init.trunc_normal_(torch.empty(11, device=d)),
        lambda d: torch.nn.init.orthogonal_(torch.empty(4, 3, device=d)),
    ],
)
def test_random_numbers_are_those_of_the_cpu(draw: Callable[[str], Any]) -> None:
    made = []
    for device in ("cpu", "cuda:1"):
        torch.manual_seed(5)
        drawn = draw(device)
        assert str(drawn.device) == device
        made.append([drawn.tolist(), torch.rand(1).item()])  # the generator goes on in the same way
    assert made[0] == made[1]


def test_functions_over_examples() -> None:
    from graphc.func import grad, jacrev, vmap

    x = torch.tensor(A, device="cuda")
    assert vmap(lambda row: row.sum() * 2)(x).tolist() == (x.sum(1) * 2).tolist()
    assert grad(lambda v: (v * v).sum())(x).tolist() == (2 * x).tolist()
    assert jacrev(lambda v: v * v)(x[0]).is_cuda
    noise = vmap(lambda row: torch.rand(2, device="cuda") + 0 * row[:2], randomness="different")(x)
    assert len({tuple(row) for row in noise.tolist()}) == 4


def test_host_operators_copy_and_are_counted() -> None:
    x = torch.tensor([1.0, 2.0], device="cuda")
    before = torch.counters()["host_calls"]
    made = torch.special.airy_ai(x)
    assert made.is_cuda and torch.counters()["host_calls"] == before
    assert made.tolist() == torch.special.airy_ai(x.cpu()).tolist()
    assert torch.counters()["host_calls"] == before + 2
    assert math.isfinite(made.sum().item())
