"""The trial by which a Hopper GPU says whether its own instructions multiply right and quicker (`graphc.trial`)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from graphc import compiled, trial
from graphc.compiled import HOPPER_ONLY, target_of
from graphc.ir.graph import Graph
from graphc.ir.types import bf16, f32
from graphc.options import scope
from graphc_runtime.cache import KernelCache
from graphc_runtime.errors import DeviceLost, OutOfMemoryError
from tests.cuda.machine import Machine
from tests.cuda.test_wgmma import FEW, LARGE

SMALL = {"a": 320, "k": 200, "c": 192}
PRODUCT = "a k, c k -> a c"


@pytest.fixture
def hopper(cuda: Machine) -> Machine:
    if target_of("cuda:0").cpu != "sm_90":
        pytest.skip("only Hopper has these instructions")
    return cuda


@pytest.fixture
def fresh(hopper: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[KernelCache]:
    """A process that knows of no trial, with a cache of its own."""
    made = KernelCache(tmp_path)
    monkeypatch.setattr(trial, "default_cache", lambda: made)
    monkeypatch.setattr(trial, "_VERDICTS", {})
    yield made


def ending(monkeypatch: pytest.MonkeyPatch, outcome: int | Exception) -> list[Any]:
    """Trials end so; gives the commands that were run."""
    commands: list[Any] = []

    def run(command: Any, **given: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        if isinstance(outcome, Exception):
            raise outcome
        return subprocess.CompletedProcess(command, outcome, b"", b"")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[bool, float]:
    """Seconds that a product takes, by lines or not: nothing is said of the shim's times."""
    made = {True: 1.0, False: 2.0}
    monkeypatch.setattr(trial, "AGAIN", 1)
    monkeypatch.setattr(trial.Way, "seconds", lambda way: made[way.by_groups])
    return made


@pytest.mark.slow
def test_products_by_lines_are_those_by_small_matrices(hopper: Machine, times: dict[bool, float]) -> None:
    """All that a GPU compares, small enough for the shim."""
    target, graphs = target_of("cuda:0"), trial.products(1 if target_of("cuda:0").cores <= FEW else LARGE)
    assert trial.tried("cuda:0", target, graphs, graphs[1])
    lines = [trial.Way(graph, replace(target, cpu=HOPPER_ONLY), "cuda:0").by_groups for graph in graphs]
    assert all(lines), "each is compared with another way"


def test_one_wrong_bit_is_a_no(hopper: Machine, times: dict[bool, float], monkeypatch: pytest.MonkeyPatch) -> None:
    right = trial.Way.result
    by = 1 if target_of("cuda:0").cores <= FEW else LARGE
    target, graph = target_of("cuda:0"), trial.product(PRODUCT, bf16, {label: n * by for label, n in SMALL.items()})

    def flipped(way: trial.Way) -> bytes:
        made = bytearray(right(way))
        made[77] ^= way.by_groups
        return bytes(made)

    assert trial.tried("cuda:0", target, [], graph)
    times[True] = 1.99
    assert not trial.tried("cuda:0", target, [], graph), "as quick is not quicker"
    times[True] = 1.0
    monkeypatch.setattr(trial.Way, "result", flipped)
    assert not trial.tried("cuda:0", target, [], graph)


@pytest.mark.parametrize(("code", "verdict"), [(trial.YES, True), (trial.NO, False), (-11, False)])
def test_a_verdict_is_kept(fresh: KernelCache, monkeypatch: pytest.MonkeyPatch, code: int, verdict: bool) -> None:
    """In this process, and in the cache for the next ones. What crashes says no."""
    commands, target = ending(monkeypatch, code), target_of("cuda:1")
    assert [trial.groups_pay("cuda:1", target) for _ in range(2)] == [verdict] * 2
    assert [command[1:] for command in commands] == [["-P", "-m", "graphc.trial", "1"]]
    trial._VERDICTS.clear()
    assert trial.groups_pay("cuda:1", target) is verdict and len(commands) == 1
    assert fresh.info().entries == 1


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [(trial.UNKNOWN, 0), (1, 0), (OSError("no processes"), 0), (subprocess.TimeoutExpired("trial", 1), 1)],
)
def test_a_trial_that_was_not_made_says_nothing(
    fresh: KernelCache, monkeypatch: pytest.MonkeyPatch, outcome: int | Exception, kept: int
) -> None:
    ending(monkeypatch, outcome)
    assert not trial.groups_pay("cuda:0", target_of("cuda:0"))
    assert fresh.info().entries == kept


def test_another_program_with_an_interpreter_is_not_started(
    fresh: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = ending(monkeypatch, trial.YES)
    monkeypatch.setattr(trial.sys, "executable", "/usr/bin/blender")
    assert not trial.groups_pay("cuda:0", target_of("cuda:0")) and not commands


def test_programs_with_much_to_multiply_ask(fresh: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = ending(monkeypatch, trial.YES)
    large = {"a": 1024, "k": 1024, "c": 1024}

    def architecture(graph: Graph, device: str = "cuda:0") -> str:
        return compiled._target_for(graph, device).cpu

    assert architecture(trial.product(PRODUCT, bf16, SMALL)) == "sm_90"
    assert architecture(trial.product(PRODUCT, f32, large)) == "sm_90"
    asked = trial.product(PRODUCT, bf16, large)
    assert architecture(asked, "cpu") != "sm_90"
    for value, wanted in (("0", "sm_90"), ("1", HOPPER_ONLY)):
        with scope(wgmma=value):
            assert architecture(asked) == wanted
    assert not commands
    assert architecture(asked) == HOPPER_ONLY and len(commands) == 1


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (True, trial.YES),
        (False, trial.NO),
        (DeviceLost("an illegal instruction"), trial.NO),
        (OutOfMemoryError("others hold it"), trial.UNKNOWN),
    ],
)
def test_the_trial_ends_with_a_code(
    cuda: Machine, monkeypatch: pytest.MonkeyPatch, outcome: bool | Exception, code: int
) -> None:
    def tried(*_: object) -> bool:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(trial, "tried", tried)
    monkeypatch.setattr(trial.sys, "argv", ["graphc.trial", "0"])
    with pytest.raises(SystemExit) as ended:
        trial.main()
    assert ended.value.code == code


def test_without_the_device_there_is_no_trial(cuda: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.sys, "argv", ["graphc.trial", "77"])
    with pytest.raises(SystemExit) as ended:
        trial.main()
    assert ended.value.code == trial.UNKNOWN


def test_seconds_are_of_one_run(cuda: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only launches move."""
    way = trial.Way(trial.product(PRODUCT, bf16, {"a": 16, "k": 16, "c": 16}), target_of("cuda:0"), "cuda:0")
    now, launch = [0.0], way._executable.launch

    def counted(*given: Any) -> None:
        now[0] += 0.25
        launch(*given)

    monkeypatch.setattr(trial.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(way._executable, "launch", counted, raising=False)
    assert way.seconds() == 0.25
