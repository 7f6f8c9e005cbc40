"""Training steps and inference of whole networks."""

from __future__ import annotations

import dataclasses

import numpy as np

from benchmarks import networks
from benchmarks.workload import OURS, Arrays, Network, Workload


def work(network: Network, section: str, batch: int, training: bool, tolerance: float) -> Workload:
    """A training step or an inference of a network."""

    def inputs() -> Arrays:
        return network.samples(np.random.default_rng(batch), batch)

    arrays = inputs()
    forward, weights = network.forward_flops(batch), network.weight_bytes()
    # Forward, and as much for each of the two gradients; weights are read and written, AdamW's two moments too.
    states = {"sgd": 1, "adamw": 3}[network.optimizer]
    traffic = 2 * states * weights if training else weights
    kind = "train" if training else "infer"
    return Workload(
        name=f"{network.name}-{kind}-b{batch}",
        section=section,
        inputs=inputs,
        flops=3 * forward - network.first_flops(batch) if training else forward,
        bytes=arrays["x"].nbytes + traffic,
        network=network,
        training=training,
        images=arrays["x"].ndim == 4,
        tolerance=tolerance,
        by_hand=training and network.name == "lenet" and batch % 16 == 0,
    )


def workloads(tiny: bool) -> list[Workload]:
    """The networks of this benchmark."""
    made: list[Workload] = []
    for network in (networks.lenet(), networks.lenet5()):
        batches = [(batch, True) for batch in (1, 4, 16, 64, 512)] + [(1, False), (64, False)]
        for batch, training in [(2, True), (2, False)] if tiny else batches:
            made.append(work(network, "LeNet", batch, training, 1e-3))
    if tiny:
        small = [
            (networks.mlp(8, 8), 3),
            (networks.resnet18((4, 8), 8), 2),
            (networks.lstm(3, 4, 3), 2),
            (networks.transformer(1, 8, 2, 4, 11), 2),
        ]
    else:
        small = [
            (networks.mlp(), 128),
            (networks.resnet18(), 16),
            (networks.lstm(), 16),
            (networks.transformer(), 8),
        ]
    for network, batch in small:
        made += [work(network, "Networks", batch, training, 2e-3) for training in (True, False)]
    steps = [step for step in made if step.section == "Networks" and step.training]
    return [*made, *(halved(step) for step in steps)]


def halved(step: Workload) -> Workload:
    """The same network under `autocast` in bf16."""
    return dataclasses.replace(
        step, name=f"{step.name}-bf16", dtype="bf16", tolerance=0.1, only=(*OURS, "torch", "torch-compile")
    )
