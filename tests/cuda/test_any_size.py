"""Programs on a GPU that differ in sizes, places or numbers: they are not compiled for each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc import any_size, interpreting, programs, recurrent_pieces, room_programs, room_work, served
from graphc.codegen.cuda.program import combined_steps
from graphc.compiled import target_of
from graphc.ir.evaluate import evaluate
from graphc.options import scope
from graphc.pipeline import build_program
from graphc.recording import Recorder, using
from graphc.rooms import sizes_of, with_room
from tests.cuda.machine import Machine
from tests.frontend.test_stored_parts import counted
from tests.frontend.test_training_of_any_size import SIZES, Attention, Convolutions, Ends, Means, learned
from tests.ir.test_rooms import ROOM, TOLD, graph_of, in_one_piece, values

Function = Callable[[int], Any]


@pytest.fixture(autouse=True)
def fresh(cuda: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was seen before, and programs that are seen are soon compiled for all sizes."""
    monkeypatch.setattr(programs, "_executables", OrderedDict())
    monkeypatch.setattr(programs, "_variants", {})
    monkeypatch.setattr(served, "_like", OrderedDict())
    monkeypatch.setattr(any_size, "compiling", lambda nodes, device: len(nodes))
    monkeypatch.setattr(room_work, "MOST_ROOM", 16)
    with scope(interpret=True), using(Recorder()):
        yield


def ramp(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape).cuda()


@pytest.mark.share(3)
@pytest.mark.parametrize(("changing_rows", "by_class"), [(False, True), (True, False)])
@pytest.mark.parametrize("kind", [Means, Attention, Convolutions, Ends])
def test_steps_over_batches_of_any_size_learn_what_they_do_on_the_cpu(
    kind: type[torch.nn.Module], changing_rows: bool, by_class: bool
) -> None:
    sizes = [(rows if changing_rows else 5, columns) for rows, columns in SIZES]
    got: list[float] = []
    done = counted(lambda: got.extend(learned(kind, sizes, by_class, "cuda")))
    assert done["any_size"] > 4
    with scope(interpret=False), using(Recorder()):
        wanted = learned(kind, sizes, by_class)
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-5)


def grown(n: int) -> Any:
    """A text that grows word by word."""
    x = ramp(n, 4)
    return torch.cat([x, (x.softmax(-1) @ ramp(4, 4)).tanh()[-1:]]).sum(0)


def written(n: int) -> Any:
    x = torch.zeros(4, 32, device="cuda")
    x[n % 4, n] = 2.5
    return x * ramp(4, 32)


def picked(n: int) -> Any:
    x = ramp(30)
    return x[x > 0.03 * n] * 2


CHANGING: dict[str, Function] = {
    "grown": grown,
    "written": written,
    "picked": picked,
    "a column": lambda n: ramp(6, 32)[:, n].exp(),
    "a number": lambda n: ramp(6) * (n + 0.25),
    "rolled": lambda n: ramp(32).roll(n) * ramp(32),
    "places": lambda n: torch.zeros(30, device="cuda").index_add(0, torch.arange(n).cuda(), ramp(n)),
}


@pytest.mark.parametrize("name", CHANGING)
def test_what_changes_from_run_to_run_is_not_compiled_each_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_size, "compiling", interpreting.compiling)
    with scope(interpret=True):
        got: list[Any] = []
        done = counted(lambda: got.extend(CHANGING[name](n).tolist() for n in range(1, 29)))
    assert done["programs_built"] <= 8, done
    with scope(interpret=False), using(Recorder()):
        for n, mine in zip(range(1, 29), got, strict=True):
            np.testing.assert_allclose(mine, CHANGING[name](n).tolist(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "batch_first", "bidirectional"),
    [(torch.nn.LSTM, False, True), (torch.nn.GRU, True, False), (torch.nn.RNN, True, True)],
)
def test_sequences_of_any_length_are_run_in_pieces(
    layer: Any, batch_first: bool, bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrent_pieces, "PIECES", (4, 1))

    def learned(device: str) -> list[float]:
        torch.manual_seed(1)
        net = layer(3, 4, batch_first=batch_first, bidirectional=bidirectional).to(device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        losses: list[float] = []
        for n in (5, 7, 6, 9, 8, 11):
            x = torch.linspace(-1, 1, 6 * n).reshape((2, n, 3) if batch_first else (n, 2, 3)).to(device)
            made, _ = net(x.requires_grad_())
            loss = (made * made).mean() + made.sum(-1).tanh().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += [loss.item(), x.grad.square().sum().item()]
        return [*losses, *(v for p in net.parameters() for v in p.flatten().tolist())]

    got: list[float] = []
    done = counted(lambda: got.extend(learned("cuda")))
    learned("cuda")  # the first lengths are run in pieces now, too
    assert counted(lambda: learned("cuda"))["programs_built"] <= 4 < done["programs_built"]
    with scope(interpret=False), using(Recorder()):
        np.testing.assert_allclose(got, learned("cpu"), rtol=1e-4, atol=1e-6)


PACKED = ("attention of two sizes", "mean over two sizes", "convolution", "causal", "normal numbers f64")


@pytest.mark.parametrize("what", PACKED)
def test_nothing_is_read_behind_the_sizes_of_packed_operands(checked: Machine, what: str) -> None:
    emit, operands = TOLD[what]
    first, second = (graph_of(emit, operands, n=n, m=m) for n, m in ((4, 9), (7, 3)))
    pairs = sizes_of([node.type for node in first.inputs], [node.type for node in second.inputs])
    roomy = with_room(first, second, dict.fromkeys(pairs, ROOM), packed=True)
    assert roomy is not None
    executable = checked.executable(roomy)
    for n, m in ((1, 2), (4, 9), (11, 16)):
        graph = graph_of(emit, operands, n=n, m=m)
        arrays = values([node.type for node in graph.inputs], n)
        sizes = [np.array({4: n, 9: m}[a], np.int32) for a, _ in pairs]
        if checked.driver is not None:
            lengths = [array.nbytes for array in (*arrays, *sizes)]
            target = target_of("cuda:0")
            for step in combined_steps(build_program(roomy, target=target), target):
                held = [a for work in step.works for a in work.step.arguments]
                extents = checked.driver.extents[step.symbol]
                assert len(held) == len(extents)
                checked.driver.extents[step.symbol] = [
                    (name, lengths[number] if number < len(lengths) else nbytes)
                    for (number, _), (name, nbytes) in zip(held, extents, strict=True)
                ]
        given = [*(in_one_piece(a, node.shape) for a, node in zip(arrays, roomy.inputs, strict=False)), *sizes]
        (got,) = checked.call(executable, roomy, given)
        (wanted,) = evaluate(graph, arrays)
        np.testing.assert_allclose(got.reshape(-1)[: wanted.size], wanted.reshape(-1), rtol=1e-5, atol=1e-6)


def test_a_program_that_graphc_cannot_compile_is_run_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise KeyError("mask")

    x = ramp(4, 5)
    x.tolist()
    with monkeypatch.context() as patch:
        patch.setattr("graphc.pipeline.make", broken)
        with pytest.warns(RuntimeWarning, match=r"could not compile .* KeyError: 'mask', at test_any_size.py:\d"):
            got = (x * 3 - 1).sum(0)
            assert got.tolist() == (x.cpu() * 3 - 1).sum(0).tolist()
    assert got.is_cuda and (got * 2).tolist() == [2 * v for v in got.tolist()]


@pytest.mark.parametrize("by_numpy", [False, True])
def test_where_there_is_no_memory_for_room_each_size_has_its_own(
    by_numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_numpy:
        monkeypatch.setattr(interpreting, "ELEMENT", 1e6)

    def run(n: int) -> list[float]:
        return ((ramp(n, 3) * 2).exp().sum(1) + 1).tolist()

    assert counted(lambda: [run(n) for n in range(3, 20)])["any_size"] > 0

    def refuse(*_: object) -> Any:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(room_programs, "allocate_all", refuse)
    got: list[list[float]] = []
    assert counted(lambda: got.extend(run(n) for n in (9, 25)))["any_size"] == 0
    for n, mine in zip((9, 25), got, strict=True):
        x = np.linspace(-1, 1, 3 * n, dtype=np.float32).reshape(n, 3)
        np.testing.assert_allclose(mine, np.exp(x * 2).sum(1) + 1, rtol=1e-5)
