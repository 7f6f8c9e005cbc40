"""Programs made for aarch64: they assemble, and call nothing that a process there does not have."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

import graphc
import graphc.compiled
from graphc import nn
from graphc.codegen.target import Target
from graphc.ir.graph import Graph
from graphc.ir.opdef import OPS
from graphc.pipeline import make
from graphc_runtime.executor import Executable
from tests.ops.corpus import FORWARD, forward, gradients
from tests.samples import SAMPLES

ARM = Target("aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32, True, 64 << 10, 1 << 20, 4)
_MACHINE = 183  # EM_AARCH64
# What every C library has; LLVM makes calls of them out of loops that copy and fill.
_LIBRARY = {"memcpy", "memset", "memmove"}


def symbols(code: bytes) -> Iterator[tuple[str, bool]]:
    """Names in the symbol table of an ELF object of 64 bits, and whether each is defined there."""
    (machine,) = struct.unpack_from("<H", code, 18)
    assert code[:5] == b"\x7fELF\x02" and machine == _MACHINE
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + size * i) for i in range(count)]
    for _, kind, _, _, start, length, link, *_ in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = sections[link][4]
        for at in range(start + 24, start + length, 24):  # the first one says nothing
            name, _, _, section = struct.unpack_from("<IBBH", code, at)
            yield code[names + name : code.index(b"\0", names + name)].decode(), section != 0


def assemble(graph: Graph, donated: frozenset[int] = frozenset()) -> None:
    artifact = make(graph, donated, ARM)
    found = [entry for code in artifact.objects for entry in symbols(code)]
    defined = {name for name, there in found if there}
    assert artifact.entry in defined
    assert {name for name, there in found if not there} - defined <= _LIBRARY


# Every other operator each time; `make fuzz` has the rest.
@pytest.mark.share(2)
@pytest.mark.parametrize("op", [*FORWARD[::2], *(pytest.param(op, marks=pytest.mark.slow) for op in FORWARD[1::2])])
def test_operators(op: str) -> None:
    graph = forward([op]).graph
    if not any(OPS[n.op].kind == "host" for n in graph.nodes):
        assemble(graph)


@pytest.mark.share(2)
@pytest.mark.parametrize("op", [name for name, samples in SAMPLES.items() if samples.smooth])
def test_derivatives(op: str) -> None:
    graph = gradients([op]).graph
    if not any(OPS[n.op].kind == "host" for n in graph.nodes):
        assemble(graph)


def attention() -> graphc.Tensor:
    layer = nn.TransformerEncoderLayer(24, 3, 40, dropout=0.1, batch_first=True)
    return layer(graphc.randn(2, 9, 24)).square().mean()


def lstm() -> graphc.Tensor:
    out, _ = nn.LSTM(7, 10, batch_first=True, bidirectional=True)(graphc.randn(3, 5, 7))
    return out.square().mean()


def convolutions() -> graphc.Tensor:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(8, 4, 3, stride=2),
        nn.GELU(),
        nn.Flatten(),
        nn.LazyLinear(5),
    )
    return nn.functional.cross_entropy(net(graphc.randn(6, 3, 19, 17)), graphc.arange(6) % 5)


def many_channels() -> graphc.Tensor:
    return nn.Conv2d(64, 64, 3, padding=1)(graphc.randn(4, 64, 28, 28)).relu().square().mean()


def halves() -> graphc.Tensor:
    layer = nn.Linear(33, 17, dtype=graphc.bfloat16)
    return layer(graphc.randn(5, 33).bfloat16()).float().softmax(1).half().logsumexp(1).float().sum()


def sorted_parts() -> graphc.Tensor:
    table = nn.Embedding(50, 8)
    values, places = graphc.randn(300).sort()
    return (table(places % 50).cumsum(0) * values[:, None]).topk(3, 0).values.sum()


@pytest.mark.share(2)
@pytest.mark.parametrize(
    "loss", [attention, lstm, convolutions, many_channels, halves, sorted_parts], ids=lambda f: f.__name__
)
def test_training_steps(loss: Callable[[], graphc.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss and its gradients, as they are compiled for this machine."""
    made: list[tuple[Graph, frozenset[int]]] = []
    compile_graph = graphc.compiled.compile_graph

    def watched(graph: Graph, donate: frozenset[int] | tuple[int, ...] = (), device: str = "cpu") -> Executable:
        made.append((graph, frozenset(donate)))
        return compile_graph(graph, donate, device)

    monkeypatch.setattr(graphc.compiled, "compile_graph", watched)
    monkeypatch.setattr(graphc.programs, "_executables", type(graphc.programs._executables)())
    graphc.manual_seed(0)
    found = loss()
    found.backward()
    assert graphc.isfinite(found).item()
    assert made
    for graph, donated in made:
        assemble(graph, donated)
