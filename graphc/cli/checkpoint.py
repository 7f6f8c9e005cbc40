"""Checkpoints of a training run: a safetensors file with the model, the optimizer's state and how far it had come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import graphc
import graphc.nn as nn
from graphc.optim import Optimizer
from graphc.saving import write_whole

FORMAT = "graphc-training-1"
_MODEL, _OPTIMIZER = "model.", "optimizer."


@dataclass(frozen=True)
class Progress:
    """How far a run has come: the settings it ran with, and a record of each epoch done."""

    settings: dict[str, Any]
    history: list[dict[str, float]]


def save_checkpoint(path: Path, net: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Write the checkpoint so that the file is always whole."""
    arrays = {_MODEL + name: _array(tensor) for name, tensor in net.state_dict().items()}
    packed = optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in packed["state"].items():
        for name, value in entries.items():
            if isinstance(value, graphc.Tensor):
                arrays[f"{_OPTIMIZER}{index}.{name}"] = _array(value)
            else:
                numbers.setdefault(str(index), {})[name] = value
    metadata = {
        "format": FORMAT,
        "epoch": str(len(progress.history)),
        "settings": json.dumps(progress.settings),
        "history": json.dumps(progress.history),
        "param_groups": json.dumps(packed["param_groups"]),
        "state_numbers": json.dumps(numbers),
    }
    try:
        write_whole(path, save(arrays, metadata))
    except OSError as error:
        raise click.ClickException(f"cannot write the checkpoint {path}: {error.strerror}") from error


def load_checkpoint(path: Path, net: nn.Module, optimizer: Optimizer) -> Progress:
    """Put the checkpoint's values into `net` and `optimizer`.

    Raises a usage error, before anything is changed, when the file is no checkpoint or its names or shapes do not fit
    the model.
    """
    if not path.is_file():
        raise click.UsageError(f"--resume: no such file: {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise click.UsageError(f"--resume: {path} is not a readable safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format field")
        raise click.UsageError(f"--resume: {path} is not a checkpoint of `graphc train` ({found}; expected {FORMAT})")
    try:
        progress = Progress(json.loads(metadata["settings"]), json.loads(metadata["history"]))
        groups = json.loads(metadata["param_groups"])
        numbers = json.loads(metadata["state_numbers"])
    except (KeyError, ValueError) as error:
        raise click.UsageError(f"--resume: the header of {path} is damaged ({error})") from error
    model = {name.removeprefix(_MODEL): a for name, a in arrays.items() if name.startswith(_MODEL)}
    _check_fit(path, net, model)
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in numbers.items()}
    for name, array in arrays.items():
        if name.startswith(_OPTIMIZER):
            index, _, entry = name.removeprefix(_OPTIMIZER).partition(".")
            state.setdefault(int(index), {})[entry] = graphc.from_numpy(array)
    net.load_state_dict({name: graphc.from_numpy(array) for name, array in model.items()})
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return progress


def _array(tensor: graphc.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _check_fit(path: Path, net: nn.Module, model: dict[str, np.ndarray]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    problems = [f"lacks {name}" for name in wanted if name not in model]
    problems += [f"has {name}, which the model does not" for name in model if name not in wanted]
    problems += [
        f"{name} has shape {list(model[name].shape)}, the model wants {list(shape)}"
        for name, shape in wanted.items()
        if name in model and model[name].shape != shape
    ]
    if problems:
        raise click.UsageError(f"--resume: {path} does not fit the model: {'; '.join(problems)}")
