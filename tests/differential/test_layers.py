"""Layers and optimizers against PyTorch: printing, state dictionaries, forward, backward and updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn
import graphc.optim
from tests.differential.compare import floats, spread, to, torch

# PyTorch warns about its own use of its old compiler.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

LAYERS: dict[str, Any] = {
    "linear": (lambda nn: nn.Linear(5, 3), (4, 5)),
    "linear_no_bias": (lambda nn: nn.Linear(5, 3, bias=False), (2, 4, 5)),
    "conv1d": (lambda nn: nn.Conv1d(2, 4, 3, stride=2, padding=1), (3, 2, 9)),
    "conv2d": (lambda nn: nn.Conv2d(2, 4, (3, 2), padding=1, groups=2), (3, 2, 7, 6)),
    "max_pool": (lambda nn: nn.MaxPool2d(2, padding=1), (2, 3, 7, 6)),
    "avg_pool": (lambda nn: nn.AvgPool2d(3, 2), (2, 3, 7, 6)),
    "flatten": (lambda nn: nn.Flatten(), (2, 3, 4)),
    "unflatten": (lambda nn: nn.Unflatten(1, (2, 3)), (2, 6, 4)),
    "relu": (lambda nn: nn.ReLU(), (3, 4)),
    "leaky_relu": (lambda nn: nn.LeakyReLU(0.1), (3, 4)),
    "tanh": (lambda nn: nn.Tanh(), (3, 4)),
    "sigmoid": (lambda nn: nn.Sigmoid(), (3, 4)),
    "gelu": (lambda nn: nn.GELU("tanh"), (3, 4)),
    "silu": (lambda nn: nn.SiLU(), (3, 4)),
    "softmax": (lambda nn: nn.Softmax(dim=1), (3, 4)),
    "log_softmax": (lambda nn: nn.LogSoftmax(dim=-1), (3, 4)),
    "batch_norm1d": (lambda nn: nn.BatchNorm1d(4), (6, 4)),
    "batch_norm2d": (lambda nn: nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 5)),
    "batch_norm_plain": (lambda nn: nn.BatchNorm2d(3, affine=False, track_running_stats=False), (4, 3, 5, 5)),
    "layer_norm": (lambda nn: nn.LayerNorm((4, 5)), (3, 4, 5)),
    "sequential": (
        lambda nn: nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                nn.Linear(27, 4)),
        (5, 1, 8, 8),
    ),
}  # fmt: skip


def same_weights(ours: Any, theirs: Any) -> None:
    ours.load_state_dict({name: graphc.tensor(value.numpy()) for name, value in theirs.state_dict().items()})


def assert_same_state(ours: Any, theirs: Any, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    wanted = theirs.state_dict()
    found = ours.state_dict()
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name].numpy(), value.numpy(), rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    make, shape = LAYERS[name]
    theirs, ours = make(torch.nn), make(graphc.nn)
    assert repr(ours) == repr(theirs)
    same_weights(ours, theirs)
    for mode in (True, True, False):
        theirs.train(mode)
        ours.train(mode)
        data = spread(*shape)
        x, y = to(torch, data, True), to(graphc, data, True)
        want, got = theirs(x), ours(y)
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-5)
        weights = floats(*want.shape)
        (want * to(torch, weights)).sum().backward()
        (got * to(graphc, weights)).sum().backward()
        np.testing.assert_allclose(y.grad.numpy(), x.grad.numpy(), rtol=1e-3, atol=1e-4)
        for (key, p), q in zip(theirs.named_parameters(), ours.parameters(), strict=True):
            np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-3, atol=1e-4, err_msg=key)
        assert_same_state(ours, theirs)


def test_embedding_with_padding() -> None:
    theirs, ours = torch.nn.Embedding(6, 3, padding_idx=2), graphc.nn.Embedding(6, 3, padding_idx=2)
    assert repr(ours) == repr(theirs)
    same_weights(ours, theirs)
    index = np.array([[2, 5], [0, 5]])
    for library, layer in ((torch, theirs), (graphc, ours)):
        layer(to(library, index)).pow(2).sum().backward()
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-5)


LOSSES: dict[str, Any] = {
    "cross_entropy": (lambda nn, w: nn.CrossEntropyLoss(weight=w, label_smoothing=0.1), "labels"),
    "nll": (lambda nn, w: nn.NLLLoss(reduction="sum"), "labels"),
    "mse": (lambda nn, w: nn.MSELoss(), "floats"),
    "l1": (lambda nn, w: nn.L1Loss(reduction="none"), "floats"),
    "smooth_l1": (lambda nn, w: nn.SmoothL1Loss(beta=0.5), "floats"),
    "bce": (lambda nn, w: nn.BCELoss(), "unit"),
    "bce_logits": (lambda nn, w: nn.BCEWithLogitsLoss(pos_weight=w), "unit"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    make, kind = LOSSES[name]
    weight = np.array([0.5, 1.0, 2.0, 1.5], np.float32)
    unit = 1 / (1 + np.exp(-floats(6, 4, seed=2)))
    target = {"labels": np.array([0, 3, 1, 1, 2, 0]), "floats": floats(6, 4, seed=1), "unit": unit}[kind]
    data = 1 / (1 + np.exp(-spread(6, 4))) if name == "bce" else spread(6, 4)
    results = []
    for library in (torch, graphc):
        criterion = make(library.nn, to(library, weight))
        x = to(library, data, True)
        loss = criterion(x, to(library, target))
        loss.sum().backward()
        results.append((repr(criterion), list(criterion.state_dict()), loss.detach().numpy(), x.grad.numpy()))
    (text, keys, loss, gradient), (our_text, our_keys, our_loss, our_gradient) = results
    assert our_text == text and our_keys == keys
    np.testing.assert_allclose(our_loss, loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(our_gradient, gradient, rtol=1e-4, atol=1e-5)


OPTIMIZERS: dict[str, Any] = {
    "sgd": ("SGD", {}),
    "sgd_momentum": ("SGD", {"momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}),
    "sgd_nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "sgd_maximize": ("SGD", {"momentum": 0.5, "maximize": True}),
    "adam": ("Adam", {}),
    "adam_decay": ("Adam", {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}),
    "adam_amsgrad": ("Adam", {"amsgrad": True}),
    "adam_maximize": ("Adam", {"maximize": True}),
    "adamw": ("AdamW", {}),
    "adamw_decay": ("AdamW", {"weight_decay": 0.3, "amsgrad": True}),
}


def run_optimizer(library: Any, name: str, options: dict[str, Any], compiled: bool) -> tuple[list[np.ndarray], Any]:
    """20 steps on a small problem; in some of them the second parameter has no gradient."""
    first = library.nn.Parameter(to(library, floats(4, 3)))
    second = library.nn.Parameter(to(library, floats(3)))
    optimizer = getattr(library.optim, name)([first, second], lr=0.01, **options)
    schedule = library.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15)

    def step(alone):
        optimizer.zero_grad()
        loss = (first**2).sum() + first.sin().mean()
        if not alone:
            loss = loss + ((first @ second) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = library.compile(step)
    for i in range(20):
        step(i % 6 == 4)
        schedule.step()
    return [first.detach().numpy(), second.detach().numpy()], optimizer.state_dict()


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_over_20_steps(name: str, compiled: bool) -> None:
    kind, options = OPTIMIZERS[name]
    wanted, their_state = run_optimizer(torch, kind, options, False)
    found, our_state = run_optimizer(graphc, kind, options, compiled)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert set(our_state["state"]) == set(their_state["state"])
    for number, entries in their_state["state"].items():
        ours = our_state["state"][number]
        present = {key for key, value in entries.items() if value is not None}
        assert set(ours) == present
        for key in present:
            np.testing.assert_allclose(ours[key].numpy(), entries[key].numpy(), rtol=1e-4, atol=1e-6, err_msg=key)


def test_digits_are_resized_as_pytorch_does_it() -> None:
    from_package = pytest.importorskip("graphc.vision.datasets.digits")
    digits = from_package.Digits(size=32)
    images, labels = from_package._digits()
    train = images[~from_package._is_test(labels)] / 16.0
    want = torch.nn.functional.interpolate(torch.tensor(train)[:, None], size=32, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(digits.data.numpy() * digits.std + digits.mean, want.numpy(), atol=1e-6)
