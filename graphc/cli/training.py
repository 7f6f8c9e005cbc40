"""Training LeNet on the handwritten digits: the loop itself, without any output."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np

import graphc
import graphc.nn.functional as F
from graphc.cli.checkpoint import Progress, load_checkpoint, save_checkpoint
from graphc.optim import SGD
from graphc.vision.datasets import Digits
from graphc.vision.models import LeNet

LR_DECAY = 0.9  # per epoch; it depends on the epoch alone, so a resumed run continues exactly


@dataclass(frozen=True)
class Settings:
    """What decides a run. `epochs` is the total, also for a run that is resumed."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    seed: int
    threads: int
    device: str
    plain: bool


@dataclass
class Report:
    """What a run has measured so far; `history` has one record per epoch, those before a resume included."""

    history: list[dict[str, float]] = field(default_factory=list)
    first_step_seconds: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    steady_steps: int = 0
    steady_seconds: float = 0.0

    def samples_per_second(self, batch_size: int) -> float:
        """Throughput of the steady steps: those that neither compiled nor loaded a program. Of all, if none was."""
        if self.steady_steps:
            return self.steady_steps * batch_size / self.steady_seconds
        return self.steps * batch_size / self.seconds if self.steps else 0.0


def _programs_made() -> int:
    counters = graphc.counters()
    return counters["compiles"] + counters["cache_hits"]


class Training:
    """A run: the model, its optimizer, the data and what was measured."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.report = Report()
        graphc.manual_seed(settings.seed)
        train, test = Digits(train=True), Digits(train=False)
        self.images, self.labels = train.data.numpy(), train.targets.numpy()
        if settings.batch_size > len(train):
            raise click.UsageError(f"--batch-size {settings.batch_size}: there are {len(train)} training samples")
        self.test_images, self.test_labels = test.data.to(settings.device), test.targets.to(settings.device)
        self.net = LeNet().to(settings.device)
        self.optimizer = SGD(self.net.parameters(), lr=settings.lr, momentum=settings.momentum)
        self._step = self._train_step if settings.plain else graphc.compile(self._train_step)

    @property
    def epoch(self) -> int:
        """Epochs done, those before a resume included."""
        return len(self.report.history)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches only: the samples that are left over differ from epoch to epoch."""
        return len(self.images) // self.settings.batch_size

    def _train_step(self, images: graphc.Tensor, labels: graphc.Tensor) -> graphc.Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def accuracy(self) -> float:
        """The share of the test images that the model names rightly."""
        with graphc.no_grad():
            right = self.net(self.test_images).argmax(1) == self.test_labels
            return right.sum().item() / len(self.test_labels)

    def run_epoch(self, on_step: Callable[[float], None]) -> dict[str, float]:
        """One pass over the training images in an order fixed by the seed and the epoch; tells `on_step` each loss."""
        size, device = self.settings.batch_size, self.settings.device
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * LR_DECAY**self.epoch
        order = np.random.default_rng([self.settings.seed, self.epoch]).permutation(len(self.images))
        images, labels = self.images[order], self.labels[order]
        held: list[graphc.Tensor] = []
        if device != "cpu":  # copied once an epoch, not batch by batch
            held = [graphc.from_numpy(array).to(device) for array in (images, labels)]
        total = 0.0
        for start in range(0, self.steps_per_epoch * size, size):
            part = slice(start, start + size)
            x, y = (whole[part] for whole in held) if held else map(graphc.from_numpy, (images[part], labels[part]))
            programs, began = _programs_made(), time.perf_counter()
            loss = self._step(x, y).item()
            self._measure(time.perf_counter() - began, steady=_programs_made() == programs)
            if not math.isfinite(loss):
                raise click.ClickException(
                    f"the loss became {loss} in epoch {self.epoch + 1}: training diverged; try a smaller --lr"
                )
            total += loss
            on_step(loss)
        record = {"train_loss": total / self.steps_per_epoch, "test_accuracy": self.accuracy()}
        self.report.history.append(record)
        return record

    def _measure(self, seconds: float, steady: bool) -> None:
        report = self.report
        if report.steps == 0:
            report.first_step_seconds = seconds
        report.steps += 1
        report.seconds += seconds
        if steady:
            report.steady_steps += 1
            report.steady_seconds += seconds

    def save(self, path: Path) -> None:
        """Write a checkpoint from which `resume` continues."""
        save_checkpoint(path, self.net, self.optimizer, Progress(asdict(self.settings), self.report.history))

    def resume(self, path: Path) -> dict[str, tuple[object, object]]:
        """Continue from a checkpoint. Returns the settings that differ and matter: name -> (then, now)."""
        progress = load_checkpoint(path, self.net, self.optimizer)
        self.report.history = list(progress.history)
        now = asdict(self.settings)
        names = ("batch_size", "lr", "momentum", "seed")
        for group in self.optimizer.param_groups:
            group["momentum"] = self.settings.momentum
        return {n: (progress.settings.get(n), now[n]) for n in names if progress.settings.get(n) != now[n]}
