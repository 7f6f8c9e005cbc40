"""`graphc train lenet`: the summary, the JSON object, checkpoints, and that resuming changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from graphc.cli.training import Training
from tests.cli.running import run

FIELDS = {
    "version": int,
    "test_accuracy": float,
    "train_loss": float,
    "samples_per_second": float,
    "first_step_seconds": float,
    "compiles": int,
    "cache_hits": int,
    "launches": int,
    "peak_bytes": int,
    "epochs": int,
    "batch_size": int,
    "lr": float,
    "momentum": float,
    "seed": int,
    "threads": int,
    "device": str,
    "plain": bool,
    "history": list,
}


def train(*arguments: str | Path) -> dict[str, Any]:
    result = run("train", "lenet", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_json_has_exactly_the_documented_fields() -> None:
    data = train("--epochs", "1", "--seed", "3")
    assert {name: type(value) for name, value in data.items()} == FIELDS
    assert data["version"] == 1 and data["epochs"] == 1 and data["seed"] == 3 and data["plain"] is False
    assert data["launches"] > 0 and data["peak_bytes"] > 0 and data["samples_per_second"] > 0


def test_it_learns_and_plain_agrees_with_compiled() -> None:
    compiled = train("--epochs", "4")
    plain = train("--epochs", "4", "--plain")
    assert compiled["test_accuracy"] > 0.75
    assert compiled["history"][-1]["train_loss"] < compiled["history"][0]["train_loss"]
    assert plain["train_loss"] == pytest.approx(compiled["train_loss"], rel=1e-3)


def test_default_training_reaches_97_percent() -> None:
    assert train()["test_accuracy"] >= 0.97


def test_text_summary_progress_plot(tmp_path: Path) -> None:
    plot = tmp_path / "curve.svg"
    result = run("train", "lenet", "--epochs", "2", "--batch-size", "256", "--plot", plot)
    assert result.exit_code == 0, result.stderr
    for word in ("test accuracy", "samples/s", "first step", "programs compiled", "peak memory"):
        assert word in result.stdout
    assert "epoch 1/2" in result.stderr and "epoch 2/2" in result.stderr and "loss" in result.stderr
    assert plot.read_text().startswith("<svg")


def test_resuming_gives_the_numbers_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, part, rest = (tmp_path / f"{name}.safetensors" for name in ("whole", "part", "rest"))
    uninterrupted = train("--epochs", "3", "--save", whole)
    train("--epochs", "1", "--save", part)
    resumed = train("--epochs", "3", "--resume", part, "--save", rest)
    assert resumed["history"] == uninterrupted["history"]
    a, b = load_file(whole), load_file(rest)
    assert a.keys() == b.keys()
    assert any(name.startswith("optimizer.") for name in a)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_a_checkpoint_goes_where_a_link_leads_and_replaces_nothing_else(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(real)
    train("--epochs", "1", "--save", link)
    assert link.is_symlink() and load_file(real)
    os.mkfifo(pipe)
    result = run("train", "lenet", "--epochs", "1", "--save", pipe)
    assert result.exit_code == 2 and f"--save {pipe} is a device, a pipe or a socket" in result.stderr
    assert "epoch 1/1" not in result.stderr and pipe.is_fifo()


def test_resume_when_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "done.safetensors"
    train("--epochs", "1", "--save", path)
    result = run("train", "lenet", "--epochs", "1", "--resume", path, "--seed", "5", "--json")
    assert result.exit_code == 0
    assert "nothing to train" in result.stderr
    assert "trained with seed 0, continuing with 5" in result.stderr
    text = run("train", "lenet", "--epochs", "1", "--resume", path).stdout
    assert "test accuracy" in text and "samples/s" not in text and "first step" not in text


@pytest.mark.parametrize("saves", [False, True])
def test_an_interrupted_run_says_what_is_kept(saves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_epoch = Training.run_epoch

    def interrupted(training: Training, on_step: Callable[[float], None]) -> dict[str, float]:
        if training.epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(training, on_step)

    monkeypatch.setattr(Training, "run_epoch", interrupted)
    path = tmp_path / "kept.safetensors"
    result = run("train", "lenet", "--epochs", "3", *(("--save", path) if saves else ()))
    assert result.exit_code == 130 and result.stdout == ""
    kept = f"{path} has 1 epoch: go on with --resume {path}" if saves else "it kept no checkpoint"
    assert result.stderr.endswith(f"stopped in epoch 2; {kept}\ninterrupted\n")


def test_wrong_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    train("--epochs", "1", "--save", path)
    good = path.read_bytes()

    def refused(expected: str) -> None:
        result = run("train", "lenet", "--epochs", "2", "--resume", path)
        assert result.exit_code == 2, result.stderr
        assert expected in result.stderr, result.stderr
        assert "Traceback" not in result.stderr

    path.write_bytes(good[: len(good) // 2])
    refused("not a readable safetensors file")
    path.write_bytes(b"")
    refused("not a readable safetensors file")
    save_file({"a": np.zeros(3, np.float32)}, path)
    refused("not a checkpoint")
    path.write_bytes(good)
    arrays = load_file(path)
    header = json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])["__metadata__"]
    wrong = {**arrays, "model.fc3.bias": np.zeros(11, np.float32), "model.fc9.bias": np.zeros(1, np.float32)}
    del wrong["model.conv1.bias"]
    save_file(wrong, path, header)
    refused("fc3.bias has shape [11], the model wants [10]")
    refused("lacks conv1.bias")
    refused("has fc9.bias")
    save_file(arrays, path, {**header, "history": "{"})
    refused("damaged")
    path.unlink()
    refused("no such file")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["alexnet"], 2, "lenet"),
        (["lenet", "--device", "cuda"], 3, "cpu"),
        (["lenet", "--device", "tpu"], 2, "cpu"),
        (["lenet", "--epochs", "0"], 2, "--epochs"),
        (["lenet", "--batch-size", "9999"], 2, "1437"),
        (["lenet", "--lr", "-1"], 2, "--lr"),
        (["lenet", "--lr", "nan"], 2, "--lr"),
        (["lenet", "--plot", "curve.gif"], 2, ".svg"),
        (["lenet", "--save", "missing/folder/x.safetensors"], 2, "no folder"),
    ],
)
def test_wrong_requests(arguments: list[str], code: int, expected: str) -> None:
    result = run("train", *arguments)
    assert result.exit_code == code, result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_divergence_is_an_error_with_advice() -> None:
    result = run("train", "lenet", "--epochs", "3", "--lr", "1e6")
    assert result.exit_code == 1
    assert "diverged" in result.stderr and "--lr" in result.stderr
