"""`graphc train lenet`: flags, progress, summary, plot, checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import graphc
from graphc.cli.common import counted, json_option, note, size_text, to_json, unknown
from graphc.cli.devices import check_device
from graphc.cli.plot import Curve, check_path, write_plot
from graphc.cli.training import Settings, Training
from graphc.errors import InputError
from graphc.saving import replaceable
from graphc_runtime import get_num_threads, set_num_threads

MODELS = ("lenet",)


@click.command("train")
@click.argument("model", metavar="MODEL")
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True, help="In all, also when resuming.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), default=0.05, show_default=True, help="Falls by 10 % an epoch."
)
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), default=0.9, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the weights and of the order.")
@click.option("--threads", type=click.IntRange(0), default=0, help="0: as many as this process may use.  [default: 0]")
@click.option("--device", default="cpu", show_default=True, help="Where to train.")
@click.option("--plain", is_flag=True, help="Train with no `graphc.compile` around the step.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.svg|.png", help="Draw loss and accuracy.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE.safetensors", help="Write checkpoints.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="FILE.safetensors", help="Continue from one.")
@json_option
def train_command(
    model: str,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    seed: int,
    threads: int,
    device: str,
    plain: bool,
    plot: Path | None,
    save: Path | None,
    resume: Path | None,
    as_json: bool,
) -> None:
    """Train MODEL (lenet) on the 1437 handwritten digits that come with graphc; test it on the other 360.

    Progress goes to stderr, the summary (or one JSON object) to stdout.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    check_device(device)
    if not math.isfinite(lr):
        raise click.UsageError(f"--lr {lr}: it must be a finite number")
    if plot is not None:
        check_path(plot)
    if save is not None:
        _check_save(save)
    if threads:
        set_num_threads(threads)
    settings = Settings(epochs, batch_size, lr, momentum, seed, get_num_threads(), device, plain)
    training = Training(settings)
    if resume is not None:
        for name, (then, now) in training.resume(resume).items():
            note(f"note: {resume} was trained with {name} {then}, continuing with {now}")
    if training.epoch >= epochs:
        note(f"note: {training.epoch} epochs are done already, nothing to train; --epochs is the total")
    saved = 0
    try:
        with _progress(training) as on_step:
            while training.epoch < epochs:
                record = training.run_epoch(on_step)
                if save is not None:
                    training.save(save)
                    saved = training.epoch
                on_step(record["train_loss"])
    except KeyboardInterrupt:
        kept = f"{save} has {counted(saved, 'epoch')}: go on with --resume {save}" if saved else "it kept no checkpoint"
        note(f"stopped in epoch {training.epoch + 1}; {kept}")
        raise
    result = summary(training)
    click.echo(to_json(result) if as_json else summary_text(result))
    if save is not None:
        note(f"checkpoint written to {save}")
    if plot is not None:
        history = training.report.history
        losses = Curve("training loss", [r["train_loss"] for r in history], "#c0392b", "left")
        accuracies = Curve("test accuracy", [r["test_accuracy"] for r in history], "#1f6fb2", "right")
        write_plot(plot, f"LeNet on handwritten digits, batch {batch_size}", [losses, accuracies])
        note(f"plot written to {plot}")


def _check_save(path: Path) -> None:
    """Raise a usage error now for what would fail after the first epoch."""
    try:
        target = replaceable(path)
    except InputError as error:
        raise click.UsageError(f"--save {error.message}") from error
    if not target.parent.is_dir():
        raise click.UsageError(f"--save {path}: there is no folder {target.parent}")


@contextmanager
def _progress(training: Training) -> Iterator[Callable[[float], None]]:
    """Gives the function to call after each step and epoch: a live bar on a terminal, one line an epoch elsewhere."""
    console = Console(stderr=True)
    report, settings = training.report, training.settings
    if not console.is_terminal:
        seen = [training.epoch]

        def line(_loss: float) -> None:
            if training.epoch == seen[0]:
                return
            seen[0] = training.epoch
            last = report.history[-1]
            speed = report.samples_per_second(settings.batch_size)
            note(
                f"epoch {training.epoch}/{settings.epochs}  loss {last['train_loss']:.4f}  "
                f"accuracy {100 * last['test_accuracy']:.2f} %  {speed:,.0f} samples/s"
            )

        yield line
        return
    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  accuracy {task.fields[accuracy]}"),
        TextColumn("{task.fields[speed]:,.0f} samples/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=10) as bar:
        per_epoch, done = training.steps_per_epoch, training.epoch
        shown: dict[str, Any] = {
            "epochs": settings.epochs,
            "epoch": done + 1,
            "loss": "-",
            "accuracy": "-",
            "speed": 0.0,
        }
        task = bar.add_task("train", total=per_epoch * max(done, settings.epochs), completed=per_epoch * done, **shown)

        def update(loss: float) -> None:
            accuracy = f"{100 * report.history[-1]['test_accuracy']:.2f} %" if report.history else "-"
            bar.update(
                task,
                completed=per_epoch * done + report.steps,
                epoch=min(settings.epochs, training.epoch + 1),
                loss=f"{loss:.4f}",
                accuracy=accuracy,
                speed=report.samples_per_second(settings.batch_size),
            )

        yield update


def summary(training: Training) -> dict[str, Any]:
    """The fields of the JSON object, in the order in which they are printed."""
    report, counters = training.report, graphc.counters()
    if training.settings.device != "cpu":
        counters = {**counters, "peak_bytes": graphc.cuda.max_memory_allocated(training.settings.device)}
    return {
        "test_accuracy": report.history[-1]["test_accuracy"],
        "train_loss": report.history[-1]["train_loss"],
        "samples_per_second": report.samples_per_second(training.settings.batch_size),
        "first_step_seconds": report.first_step_seconds,
        **{name: counters[name] for name in ("compiles", "cache_hits", "launches", "peak_bytes")},
        **asdict(training.settings),
        "epochs": training.epoch,
        "history": report.history,
    }


def summary_text(result: dict[str, Any]) -> str:
    """The summary for people."""
    mode = "plain" if result["plain"] else "compiled"
    place = f"{result['threads']} threads" if result["device"] == "cpu" else result["device"]
    rows = [
        ("test accuracy", f"{100 * result['test_accuracy']:.2f} %"),
        ("training loss", f"{result['train_loss']:.4f}"),
    ]
    if result["samples_per_second"]:  # else nothing was left to train
        rows += [
            ("speed", f"{result['samples_per_second']:,.0f} samples/s ({mode}, {place})"),
            ("first step", f"{result['first_step_seconds']:.3f} s"),
            ("programs compiled", f"{result['compiles']}, found in the cache: {result['cache_hits']}"),
            ("peak memory", size_text(result["peak_bytes"])),
        ]
    return "\n".join(f"{name:<18} {value}" for name, value in rows)
