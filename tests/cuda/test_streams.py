"""Work on several streams gives what it gives on the CPU, whenever it is done, if everybody waits who must."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc_runtime.devices.cuda import cuda_device
from tests.cuda.machine import Machine

pytestmark = pytest.mark.usefixtures("cuda")

TENSORS, SIZE = 4, 6


def _pointwise(a: Any, b: Any) -> Any:
    return (a * b).tanh() + a


def _product(a: Any, b: Any) -> Any:
    c = a @ b
    return c / (1 + c.abs().sum())


def _scaled(a: Any, factor: float) -> Any:
    return a * factor + 1


def _halved(a: Any, b: Any) -> None:
    a.mul_(0.5).add_(b, alpha=0.1)


class _Tensor:
    """A tensor on the device beside the same one on the CPU, and the streams that have to do with its memory."""

    def __init__(self, host: Any, device: Any, stream: Any) -> None:
        self.host, self.device = host, device
        self.written = stream
        self.used = [stream]

    def check(self) -> None:
        np.testing.assert_allclose(self.device.cpu().numpy(), self.host.numpy(), rtol=2e-4, atol=1e-4)


@pytest.fixture(scope="module")
def compiled(cuda: Machine) -> dict[str, Callable[..., Any]]:
    """Compiled functions by name. They remember programs of the devices of `cuda`: other devices, other functions."""
    return {f.__name__.strip("_"): graphc.compile(f) for f in (_pointwise, _product, _scaled)}


class _Work:
    """Random work on tensors, the streams waiting for each other as PyTorch asks."""

    def __init__(self, seed: int, compiled: dict[str, Callable[..., Any]]) -> None:
        self.compiled = compiled
        self.chance = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.streams = [graphc.cuda.default_stream(), graphc.cuda.Stream(), graphc.cuda.Stream()]
        made = [graphc.tensor(self.array()) for _ in range(TENSORS)]
        self.tensors = [_Tensor(host, host.cuda(), self.streams[0]) for host in made]

    def array(self) -> np.ndarray:
        return self.numbers.standard_normal((SIZE, SIZE), np.float32)

    def result(self, stream: Any, function: Callable[..., Any], *operands: Any) -> None:
        """A new tensor in the place of some other."""
        of = [[getattr(o, side) if isinstance(o, _Tensor) else o for o in operands] for side in ("host", "device")]
        self.put(stream, function(*of[0]), function(*of[1]))

    def put(self, stream: Any, host: Any, device: Any) -> None:
        self.tensors[self.chance.randrange(TENSORS)] = _Tensor(host, device, stream)

    def step(self) -> None:
        chance = self.chance
        stream, a, b = chance.choice(self.streams), chance.choice(self.tensors), chance.choice(self.tensors)
        kind = chance.choice(
            ("pointwise", "product", "scaled", "plain", "write", "copy", "bring", "item", "list", "free")
        )
        with stream:
            for tensor in (a, b):
                for other in tensor.used if kind in ("write", "copy") else [tensor.written]:
                    stream.wait_stream(other)
                tensor.used.append(stream)
            if kind in ("write", "copy"):
                function = _halved if kind == "write" else graphc.Tensor.copy_
                function(a.host, b.host)
                function(a.device, b.device)
                a.written, a.used = stream, [stream]
            elif kind == "bring":
                array = self.array()
                self.put(stream, graphc.tensor(array), graphc.tensor(array).pin_memory().to("cuda", non_blocking=True))
            elif kind == "item":
                assert a.device.sum().item() == pytest.approx(a.host.sum().item(), rel=1e-3, abs=1e-3)
            elif kind == "list":
                a.check()
            elif kind == "free":
                big = [graphc.ones(64, 64, device="cuda") * k for k in range(3)]
                del big
            elif kind == "scaled":
                self.result(stream, self.compiled[kind], a, chance.random())
            else:
                self.result(stream, self.compiled.get(kind, graphc.add), a, b)


@pytest.fixture(params=[None, 1, 2, 3], ids=["late", "1", "2", "3"])
def order(request: pytest.FixtureRequest, cuda: Machine) -> Iterator[int | None]:
    """When the device does what it is given; a real one does it as it likes."""
    if cuda.driver is not None:
        cuda.driver.shuffle(request.param)
    yield request.param
    if cuda.driver is not None:
        cuda.driver.shuffle(None)


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 250), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_random_work(seeds: range, order: int | None, compiled: dict[str, Callable[..., Any]]) -> None:
    for seed in seeds:
        work = _Work(1000 * (order or 0) + seed, compiled)
        for _ in range(work.chance.randrange(10, 60)):
            work.step()
        graphc.cuda.synchronize()
        for tensor in work.tensors:
            tensor.check()


class _Foreign:
    """An array of another library, which writes it on a stream of its own."""

    def __init__(self, value: int) -> None:
        driver = cuda_device(0).driver
        driver.activate()
        self.memory = driver.allocate(4 * SIZE)
        stream = driver.make_stream()
        driver.fill(self.memory, value, 4 * SIZE, stream)
        self.__cuda_array_interface__ = {
            "version": 3,
            "typestr": "<i4",
            "shape": (SIZE,),
            "strides": None,
            "data": (self.memory, False),
            "stream": driver.stream_number(stream),
        }


@pytest.mark.parametrize("own", [False, True], ids=["default stream", "another"])
def test_arrays_of_others_are_waited_for(own: bool, order: int | None) -> None:
    with graphc.cuda.stream(graphc.cuda.Stream() if own else None):
        for value in range(1, 5):
            foreign = _Foreign(value)
            assert (graphc.as_tensor(foreign) * 2).tolist() == [2 * value * 0x01010101] * SIZE
            assert graphc.tensor(foreign).tolist() == [value * 0x01010101] * SIZE


@pytest.mark.parametrize("named", [False, True], ids=["none", "own"])
@pytest.mark.parametrize("own", [False, True], ids=["default stream", "another"])
def test_others_wait_for_what_they_are_given(own: bool, named: bool, order: int | None) -> None:
    device = cuda_device(0)
    driver = device.driver
    driver.activate()
    theirs = driver.make_stream() if named else None
    number = driver.stream_number(theirs) if named else None
    with graphc.cuda.stream(graphc.cuda.Stream() if own else None):
        for value in range(1, 5):
            x = graphc.full((SIZE,), value, dtype=graphc.int32, device="cuda") * 3
            capsule = x.__dlpack__(stream=number)
            target = device.pin(4 * SIZE)
            driver.activate()
            driver.copy_out(target.ptr, x.data_ptr(), 4 * SIZE, theirs)
            driver.synchronize_stream(theirs)
            assert target.view(np.int32, (SIZE,)).tolist() == [3 * value] * SIZE
            del capsule


def test_batches_come_on_a_stream_of_their_own(order: int | None) -> None:
    """A loader that brings the next batch while the last one is worked on."""
    arrays = [np.full((8, SIZE), k, np.float32) for k in range(12)]
    weight = graphc.ones(SIZE, 3, device="cuda", requires_grad=True)
    side, losses = graphc.cuda.Stream(), []

    def bring(array: np.ndarray) -> Any:
        side.wait_stream(graphc.cuda.current_stream())
        with graphc.cuda.stream(side):
            return graphc.tensor(array).pin_memory().cuda(non_blocking=True) / 10

    coming = bring(arrays[0])
    for following in [*arrays[1:], arrays[0]]:
        graphc.cuda.current_stream().wait_stream(side)
        batch = coming
        batch.record_stream(graphc.cuda.current_stream())
        coming = bring(following)
        loss = (batch @ weight).mean()
        loss.backward()
        losses.append(loss.detach())
        del batch
    assert weight.grad.tolist() == pytest.approx(np.full((SIZE, 3), sum(range(12)) / 30), rel=1e-5)
    assert [loss.item() for loss in losses] == pytest.approx([k * SIZE / 10 for k in range(12)], rel=1e-5)


def test_numbers_are_there_on_each_stream_that_reads_them(
    order: int | None, compiled: dict[str, Callable[..., Any]]
) -> None:
    """The second stream does not wait for the first, on which the same number was brought."""
    scaled = compiled["scaled"]
    first, second = graphc.cuda.Stream(), graphc.cuda.Stream()
    x = graphc.linspace(-1, 1, 12)
    mine, other = x.cuda(), (x * 3).cuda()
    graphc.cuda.synchronize()
    for factor in (0.5, 0.25, -2.0):
        with first:
            a = scaled(mine, factor)
        with second:
            b = scaled(other, factor)
            got = b.cpu()  # waits for this stream alone
        np.testing.assert_allclose(got.numpy(), x.numpy() * 3 * factor + 1, rtol=1e-6)
        first.synchronize()
        np.testing.assert_allclose(a.cpu().numpy(), x.numpy() * factor + 1, rtol=1e-6)
