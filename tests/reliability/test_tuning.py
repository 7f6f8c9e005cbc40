"""Searching schedules with clocks of the test's own: what is kept, how long it goes on, and what the cache holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import graphc
import graphc.nn as nn
from graphc import compiled, optim, programs, tuning
from graphc.codegen.canonical import form_of, moved
from graphc.codegen.llvm.host import host_target
from graphc.codegen.schedule import MODEL, Choice
from graphc.compiled import key_fields, tuning_fields
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32
from graphc.options import TUNE, scope
from graphc.pipeline import build_program, schedule
from graphc.recording import Recorder, using
from graphc.tuning import Candidate, Found, Meter, is_faster, search
from graphc_runtime import get_num_threads, set_num_threads
from graphc_runtime.cache import KernelCache
from graphc_runtime.cache_entry import encode_fields, key_of

TARGET = host_target()
Seconds = Callable[[Choice], float]


class FakeMeter(Meter):
    """Time that passes when a candidate is measured: `step` seconds; each run takes `seconds(choice)`."""

    def __init__(self, seconds: Seconds, step: float = 0.0) -> None:
        self.time = 0.0
        self.seconds = seconds
        self.step = step
        self.asked: list[Choice] = []

    def now(self) -> float:
        return self.time

    def sample(self, candidate: Candidate) -> float:
        self.time += self.step
        self.asked.append(candidate.choice)
        return self.seconds(candidate.choice)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelCache:
    """A cache that nothing else uses."""
    made = KernelCache(tmp_path / "cache")
    monkeypatch.setattr(tuning, "default_cache", lambda: made)
    monkeypatch.setattr(compiled, "default_cache", lambda: made)
    monkeypatch.setattr(programs, "_executables", type(programs._executables)())
    return made


@pytest.fixture(autouse=True)
def own_recorder() -> Iterator[None]:
    with using(Recorder()):
        yield


def meter(monkeypatch: pytest.MonkeyPatch, seconds: Seconds, step: float = 0.0) -> FakeMeter:
    made = FakeMeter(seconds, step)
    monkeypatch.setattr(tuning, "METER", made)
    monkeypatch.setattr(tuning, "OPTIONS", {"tile": 4, "panels": 2, "lane": 2})  # building all takes long
    return made


def favourite(best: Choice, seconds: float = 0.5) -> Seconds:
    return lambda choice: seconds if choice == best else 1.0


def graph_of(*shapes: tuple[int, int, int]) -> Graph:
    """Products of matrices of these extents, each a kernel of its own."""
    b = Builder()
    inputs, outputs = [], []
    for n, k, m in shapes:
        x, y = (b.input(len(inputs) + i, TensorType(f32, s)) for i, s in enumerate(((n, k), (k, m))))
        inputs += [x, y]
        outputs.append(b.contract(x, y, "m k, k n -> m n"))
    return Graph(tuple(inputs), tuple(outputs))


def searched(graph: Graph, seconds: float = 10.0) -> dict[tuple[int, ...], Choice]:
    """The choices by the shapes of what their kernels store."""
    fused = schedule(graph, TARGET)
    found = search(fused, TARGET, seconds, tuning_fields(TARGET, "cpu"))
    forms = {form_of(group).key: group.targets[0].shape for group in fused.groups}
    return {forms[key]: choice for key, choice in found.items()}


def count(name: str) -> int:
    return graphc.counters()[name]


PRODUCT = graph_of((70, 65, 90))


@pytest.mark.parametrize("best", [Choice(tile=1), Choice(tile=2), Choice(tile=2, panels=1), Choice(lane=1, tile=1)])
def test_what_is_faster_is_used(best: Choice, store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (MODEL, Choice(lane=best.lane), Choice(best.lane, best.tile), best)
    measured = meter(monkeypatch, lambda choice: 0.9 ** steps.index(choice) if choice in steps else 1.0)
    before = count("tuned_faster")
    assert searched(PRODUCT) == {(70, 90): best}
    assert count("tuned_faster") == before + 1
    assert measured.asked[-2:] in ([MODEL, best], [best, MODEL])  # the last word has a comparison with the model's


@pytest.mark.parametrize("others", [1.0, 1.5, 1 - tuning.MARGIN / 2])
def test_ties_and_small_gains_leave_the_models_schedule(
    others: float, store: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter(monkeypatch, lambda choice: 1.0 if choice == MODEL else others)
    tried, faster = count("candidates"), count("tuned_faster")
    assert searched(PRODUCT) == {(70, 90): MODEL}
    assert count("candidates") >= tried + 5
    assert count("tuned_faster") == faster


def test_a_gain_that_does_not_last_is_given_up(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(choice: Choice) -> float:
        return 0.5 if choice == Choice(tile=3) and measured.asked.count(choice) < 12 else 1.0

    measured = meter(monkeypatch, seconds)
    assert searched(PRODUCT) == {(70, 90): MODEL}
    assert measured.asked.count(Choice(tile=3)) >= 12


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.5], True),
        ([0.97], True),
        ([0.99], False),
        ([1.0], False),
        ([0.5, 1.4, 0.6, 1.3, 0.97, 1.2], False),  # the least time is by chance
        ([0.8, 0.9, 0.85, 3.0], True),  # something else ran at times
    ],
)
def test_measurements_must_be_clear(times: list[float], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Timed(Candidate):
        def __init__(self, times: list[float]) -> None:
            self.times = times * 20

    class Popping(Meter):
        def sample(self, candidate: Candidate) -> float:
            assert isinstance(candidate, Timed)
            return candidate.times.pop(0)

    monkeypatch.setattr(tuning, "METER", Popping())
    assert is_faster(Timed([1.0]), Timed(times)) is expected


def test_programs_run_the_kernels_that_were_found(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    meter(monkeypatch, favourite(Choice(tile=2)))
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((70, 65), (65, 90)))
    run = graphc.compile(lambda a, b: a @ b, tune=5)
    for _ in range(2):
        np.testing.assert_allclose(run(graphc.tensor(x), graphc.tensor(y)).numpy(), x @ y, rtol=1e-4, atol=1e-4)
    (held,) = (e for e in store.list() if "graph" in e.fields)
    assert held.fields["option.tune"] == "5.0"
    form = form_of(schedule(PRODUCT, TARGET).groups[0])
    tuned = build_program(PRODUCT, choices={form.key: Choice(tile=2)})
    assert tuned.texts != build_program(PRODUCT).texts
    (found,) = (e for e in store.list() if e.fields.get("kind") == "schedule")
    assert found.fields["form"] == form.text


def test_nothing_is_searched_unless_asked(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = meter(monkeypatch, favourite(Choice(tile=1)))
    x = graphc.ones(70, 65)
    for run in (graphc.compile(lambda a: a @ a.T), graphc.compile(lambda a: a @ a.T + 1, tune=0)):
        run(x)
    assert not measured.asked
    assert not [e for e in store.list() if e.fields.get("kind") == "schedule"]


@pytest.mark.parametrize("tune", ["5", True, [1.0]])
def test_a_wrong_kind_of_seconds(tune: object) -> None:
    with pytest.raises(TypeError, match="tune is a number of seconds"):
        graphc.compile(abs, tune=tune)


@pytest.mark.parametrize("tune", [-1, float("nan"), float("inf"), -0.5])
def test_no_possible_number_of_seconds(tune: float) -> None:
    with pytest.raises(ValueError, match="tune is a number of seconds from 0 on"):
        graphc.compile(tune=tune)


# the cache


def test_a_second_search_tries_nothing(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    meter(monkeypatch, favourite(Choice(tile=2)))
    first = searched(PRODUCT)
    again = meter(monkeypatch, favourite(Choice(tile=4)))
    for _ in range(2):
        assert searched(PRODUCT) == first
        store.forget()  # as another process finds it
    assert not again.asked


NUMBERS: dict[str, object] = dict.fromkeys(Choice.__dataclass_fields__, 0)
WRONG: list[object] = [
    [],
    {},
    {"choice": {"tile": 2}, "is_finished": True},
    {"choice": {**NUMBERS, "more": 0}, "is_finished": True},
    {"choice": {**NUMBERS, "tile": -1}, "is_finished": True},
    {"choice": {**NUMBERS, "tile": 63}, "is_finished": True},
    {"choice": {**NUMBERS, "tile": True}, "is_finished": True},
    {"choice": {**NUMBERS, "tile": "2"}, "is_finished": True},
    {"choice": NUMBERS, "is_finished": 1},
]


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[" * 100_000, *(json.dumps(w).encode() for w in WRONG)])
def test_a_wrong_entry_is_a_miss(payload: bytes, store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    meter(monkeypatch, favourite(Choice(tile=2)))
    first = searched(PRODUCT)
    (entry,) = store.list()
    store.put(entry.fields, payload, frozenset())
    again = meter(monkeypatch, favourite(Choice(tile=2)))
    assert searched(PRODUCT) == first
    assert again.asked
    assert Found.from_bytes(store.get(entry.fields, frozenset()) or b"") == Found(Choice(tile=2), is_finished=True)


def test_a_damaged_file_is_a_miss(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    meter(monkeypatch, favourite(Choice(tile=2)))
    first = searched(PRODUCT)
    assert store.path is not None
    (file,) = store.path.rglob("*.entry")
    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(bytes(data))
    store.forget()
    again = meter(monkeypatch, favourite(Choice(tile=2)))
    assert searched(PRODUCT) == first
    assert again.asked
    assert not store.verify().bad


def test_keys_of_tuned_programs_are_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        return key_of(encode_fields(key_fields(PRODUCT, frozenset(), TARGET, "cpu")))

    before = get_num_threads()
    keys = [key()]
    with scope(**{TUNE.name: 5.0}):
        keys.append(key())
        try:
            set_num_threads(before + 1)
            keys.append(key())
        finally:
            set_num_threads(before)
        monkeypatch.setattr(compiled, "processor", lambda: "another")
        keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_what_a_search_found_does_not_depend_on_its_seconds() -> None:
    fields = tuning_fields(TARGET, "cpu")
    with scope(**{TUNE.name: 7.0}):
        assert tuning_fields(TARGET, "cpu") == fields
    assert {"processor", "threads", "compiler", "target.l2_bytes"} <= set(fields)


# time


def test_the_search_ends_in_time(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = meter(monkeypatch, favourite(Choice(tile=1)), step=1.0)
    searched(PRODUCT, seconds=60.0)
    assert 10 < measured.time <= 60 + tuning.ROUNDS * 2
    (entry,) = store.list()
    found = Found.from_bytes(store.get(entry.fields, frozenset()) or b"")
    assert found == Found(Choice(tile=1), is_finished=False)


def test_a_search_that_was_cut_short_goes_on(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    meter(monkeypatch, favourite(Choice(tile=1)), step=1.0)
    searched(PRODUCT, seconds=60.0)
    more = meter(monkeypatch, lambda choice: 1.0 if choice == MODEL else 0.1 if choice.panels == 1 else 0.5)
    assert searched(PRODUCT) == {(70, 90): Choice(tile=1, panels=1)}
    assert Choice(tile=1) in more.asked


def test_no_time_is_no_search(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = meter(monkeypatch, favourite(Choice(tile=1)), step=1.0)
    assert set(searched(PRODUCT, seconds=0.5).values()) <= {MODEL}
    assert not {choice for choice in measured.asked if choice != MODEL}


def test_kernels_share_the_time_by_how_long_they_take(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of((70, 65, 90), (72, 65, 90))
    tried: dict[float, int] = {}

    def seconds(candidate: Candidate) -> float:
        return 8.0 if candidate._buffers[0].nbytes == 72 * 65 * 4 else 1.0

    class Sharing(FakeMeter):
        def sample(self, candidate: Candidate) -> float:
            self.time += 1.0
            taken = seconds(candidate)
            tried[taken] = tried.get(taken, 0) + 1
            return taken

    monkeypatch.setattr(tuning, "METER", Sharing(lambda _: 1.0))
    searched(graph, seconds=100.0)
    assert tried[8.0] > 3 * tried[1.0]


def test_an_interrupt_leaves_the_cache_whole(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of((70, 65, 90), (72, 65, 90))

    def seconds(choice: Choice) -> float:
        if store.list() and len(measured.asked) % 10 == 0:
            raise KeyboardInterrupt
        return favourite(Choice(tile=2))(choice)

    measured = meter(monkeypatch, seconds)
    with pytest.raises(KeyboardInterrupt):
        searched(graph)
    assert len(store.list()) == 1
    assert not store.verify().bad
    meter(monkeypatch, favourite(Choice(tile=2)))
    assert set(searched(graph).values()) == {Choice(tile=2)}


def test_an_interrupted_call_can_be_made_again(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Choice) -> float:
        raise KeyboardInterrupt

    meter(monkeypatch, interrupt)
    run = graphc.compile(lambda a: a @ a.T, tune=5)
    x = graphc.ones(70, 65)
    with pytest.raises(KeyboardInterrupt):
        run(x)
    meter(monkeypatch, favourite(Choice(tile=2)))
    assert run(x).tolist() == [[65.0] * 70] * 70


# whole programs


def training(tune: float | None, threads: int) -> tuple[list[float], list[object]]:
    graphc.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10))
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = graphc.randn(16, 1, 8, 8), graphc.randint(0, 10, (16,))

    def step() -> graphc.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    before = get_num_threads()
    set_num_threads(threads)
    try:
        run = graphc.compile(step, tune=tune)
        losses = [run().item() for _ in range(5)]
    finally:
        set_num_threads(before)
    return losses, [p.tolist() for p in net.parameters()]


@pytest.mark.parametrize("threads", [1, 2])
def test_training_steps(threads: int, store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step overwrites is the step's alone: losses and parameters are those of plain steps."""
    speeds: dict[Choice, float] = {MODEL: 1.0}
    meter(monkeypatch, lambda choice: speeds.setdefault(choice, 0.9 ** len(speeds)), step=0.1)
    before = count("tuned_faster")
    tuned = training(20.0, threads)
    assert count("tuned_faster") > before
    plain = training(None, threads)
    np.testing.assert_allclose(tuned[0], plain[0], rtol=1e-4)
    for got, expected in zip(tuned[1], plain[1], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_candidates_run_on_memory_of_their_own(store: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    x = graphc.randn(70, 65)
    mine = x.numpy().ctypes.data
    seen: set[int] = set()

    class Looking(FakeMeter):
        def sample(self, candidate: Candidate) -> float:
            seen.update(buffer.ptr for buffer in candidate._buffers)
            return super().sample(candidate)

    meter(monkeypatch, favourite(MODEL))
    monkeypatch.setattr(tuning, "METER", Looking(lambda _: 1.0))
    before = x.tolist()
    graphc.compile(lambda a: a @ a.T, tune=1)(x)
    assert seen
    assert mine not in seen
    assert x.tolist() == before


PROGRAM = """
import json
import graphc
run = graphc.compile(lambda a, b: a @ b, tune=0.5)
print(json.dumps({"sum": run(graphc.ones(70, 65), graphc.ones(65, 90)).sum().item(), **graphc.counters()}))
"""


def test_a_second_process_neither_searches_nor_compiles(tmp_path: Path) -> None:
    env = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path / "cache")}
    run = partial(subprocess.run, [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=300)
    first, second = (json.loads(run(check=True).stdout) for _ in range(2))
    assert first["tuned_kernels"] > 0
    assert first["compiles"] > 0
    assert second["sum"] == first["sum"] == 65 * 70 * 90
    assert second["candidates"] == second["tuned_kernels"] == second["compiles"] == 0


def test_groups_are_measured_by_their_forms() -> None:
    """What is measured is the group that programs with the same form have a kernel of."""
    form = form_of(schedule(PRODUCT, TARGET).groups[0])
    assert form_of(moved(form)[0]).key == form.key
