"""Worker processes of a loader: each is a fork that fetches whole batches and sends them back through a pipe."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from graphc import manual_seed
from graphc.errors import UsageError

_PATIENCE = 5.0  # seconds between looks whether the other side still lives


@dataclass(frozen=True)
class WorkerInfo:
    """What `get_worker_info` tells inside a worker."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_here: list[WorkerInfo] = []


def get_worker_info() -> WorkerInfo | None:
    """In a worker: its number, how many there are, its seed and its copy of the dataset; None in the main process."""
    return _here[0] if _here else None


@dataclass(frozen=True)
class _Failure:
    """An exception on its way to the main process."""

    kind: type[BaseException]
    text: str

    @classmethod
    def caught(cls, error: BaseException, worker: int) -> _Failure:
        lines = "".join(traceback.format_exception(error))
        return cls(
            type(error), f"Caught {type(error).__name__} in DataLoader worker process {worker}.\nOriginal {lines}"
        )

    def reraise(self) -> None:
        """The same kind of exception, with the worker's traceback as its text."""
        try:
            made = self.kind(self.text)
        except TypeError:  # a class that wants other arguments
            made = UsageError(self.text)
        raise made


class _End:
    """A stream is at its end."""


@dataclass(frozen=True)
class Job:
    """What workers do: `start()` gives, for one pass, the function that fetches the batch of some indices (for streams,
    the next one: StopIteration at the end).
    """

    dataset: Any
    start: Callable[[], Callable[[Any], Any]]
    init: Callable[[int], None] | None


def _serve(job: Job, tasks: Connection, results: Connection, info: WorkerInfo, parent: int) -> None:
    """The worker's loop: a task is (number of the batch, indices), ("pass", seed) or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process gets it too, and ends its workers
    _here[:] = [info]
    fetch: Callable[[Any], Any] | None = None
    broken: _Failure | None = None
    while True:
        while not tasks.poll(_PATIENCE):
            if os.getppid() != parent:
                return
        task = tasks.recv()
        if task is None:
            return
        if task[0] == "pass":
            seed = task[1] + info.id
            random.seed(seed)
            np.random.seed(seed % (1 << 32))
            manual_seed(seed)
            try:
                if fetch is None and job.init is not None:
                    job.init(info.id)
                fetch, broken = job.start(), None
            except Exception as error:
                broken = _Failure.caught(error, info.id)
            continue
        number, indices = task
        answer: Any = broken
        if answer is None:
            assert fetch is not None
            try:
                answer = fetch(indices)
            except StopIteration:
                answer = _End()
            except Exception as error:
                answer = _Failure.caught(error, info.id)
        try:
            results.send((number, answer))
        except Exception as error:  # the batch, or the class of the exception, cannot be sent
            text = answer.text if isinstance(answer, _Failure) else _Failure.caught(error, info.id).text
            results.send((number, _Failure(RuntimeError, text)))


@dataclass
class _Worker:
    process: Any
    tasks: Connection
    results: Connection


class Workers:
    """The worker processes of one loader."""

    def __init__(self, job: Job, count: int, seed: int) -> None:
        context = multiprocessing.get_context("fork")
        self._workers: list[_Worker] = []
        for i in range(count):
            tasks_in, tasks_out = context.Pipe(duplex=False)
            results_in, results_out = context.Pipe(duplex=False)
            info = WorkerInfo(i, count, seed + i, job.dataset)
            process = context.Process(
                target=_serve, args=(job, tasks_in, results_out, info, os.getpid()), daemon=True, name=f"loader-{i}"
            )
            with warnings.catch_warnings():
                # graphc's own threads are made for forks; see tests/reliability/test_fork.py.
                warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
                process.start()
            tasks_in.close()
            results_out.close()
            self._workers.append(_Worker(process, tasks_out, results_in))
        self.close = weakref.finalize(self, _stop, self._workers)

    def start_pass(self, seed: int) -> None:
        """Begin anew in every worker."""
        for worker in self._workers:
            self._send(worker, ("pass", seed))

    def batches(self, order: Iterator[Any], ahead: int, timeout: float) -> Iterator[Any]:
        """Batches in order, each worker being `ahead` tasks ahead. `order` gives the indices of batches."""
        alive = list(range(len(self._workers)))
        asked: list[tuple[int, int]] = []  # (number, worker) of what is under way, in order
        number = turn = 0
        while True:
            while alive and len(asked) < ahead * len(alive):
                indices = next(order, _End)
                if indices is _End:
                    break
                worker = alive[turn % len(alive)]
                self._send(self._workers[worker], (number, indices))
                asked.append((number, worker))
                number, turn = number + 1, turn + 1
            if not asked:
                return
            wanted, worker = asked.pop(0)
            answer = self._receive(self._workers[worker], wanted, timeout)
            if isinstance(answer, _Failure):
                self._drain(asked, timeout)
                answer.reraise()
            if isinstance(answer, _End):
                if worker in alive:
                    alive.remove(worker)
                continue
            yield answer

    def _drain(self, asked: list[tuple[int, int]], timeout: float) -> None:
        """Take what is still under way, so that workers which stay alive begin the next pass with empty pipes."""
        for number, worker in asked:
            self._receive(self._workers[worker], number, timeout)
        asked.clear()

    def _send(self, worker: _Worker, task: Any) -> None:
        try:
            worker.tasks.send(task)
        except OSError:
            raise _lost(worker) from None

    def _receive(self, worker: _Worker, number: int, timeout: float) -> Any:
        waited = 0.0
        while True:
            step = min(_PATIENCE, timeout - waited) if timeout else _PATIENCE
            try:
                if worker.results.poll(step):
                    found, answer = worker.results.recv()
                    if found == number:
                        return answer
                    continue  # from a pass that was given up
            except (EOFError, OSError):
                raise _lost(worker) from None
            if not worker.process.is_alive():
                raise _lost(worker)
            waited += step
            if timeout and waited >= timeout:
                raise UsageError(f"DataLoader timed out after {timeout} seconds")


def _lost(worker: _Worker) -> RuntimeError:
    worker.process.join(_PATIENCE)
    return UsageError(
        f"DataLoader worker (pid {worker.process.pid}) exited unexpectedly with exit code {worker.process.exitcode}. "
        "Running with num_workers=0 shows what goes wrong in it."
    )


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        with contextlib.suppress(OSError):
            worker.tasks.send(None)
        worker.tasks.close()
        worker.results.close()
    for worker in workers:
        worker.process.join(0.5)
        if worker.process.is_alive():
            worker.process.terminate()
            worker.process.join()
