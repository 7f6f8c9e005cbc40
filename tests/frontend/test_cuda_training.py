"""Training on CUDA tensors: modules, optimizers, compiled steps, checkpoints; every number as on the CPU."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc import nn, optim
from graphc.recording import current
from graphc.utils.data import DataLoader, TensorDataset
from tests.runtime.recording_driver import RecordingDevice

pytestmark = pytest.mark.usefixtures("cuda")

X = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 8)


def network() -> Any:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.2), nn.Linear(7, 3))


def trained(device: str, make: Callable[[Any], Any], steps: int = 4, compiled: bool = False) -> tuple[list[float], Any]:
    model = network().to(device)
    optimizer = make(model.parameters())
    x, y = torch.tensor(X, device=device), torch.tensor(Y, device=device)

    def step() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = torch.compile(step) if compiled else step
    return [run().item() for _ in range(steps)], model


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: optim.RAdam(p, lr=0.01),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Rprop": lambda p: optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: optim.ASGD(p, lr=0.1),
    "Adadelta": lambda p: optim.Adadelta(p),
    "Adamax": lambda p: optim.Adamax(p),
    "Adafactor": lambda p: optim.Adafactor(p),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_cpu(name: str) -> None:
    losses, model = trained("cpu", OPTIMIZERS[name])
    on_cuda, moved = trained("cuda", OPTIMIZERS[name])
    assert on_cuda == losses
    for a, b in zip(model.parameters(), moved.parameters(), strict=True):
        assert b.is_cuda and b.grad.is_cuda
        np.testing.assert_array_equal(b.detach().cpu().numpy(), a.detach().numpy())


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad"])
def test_compiled_steps_are_replayed(name: str) -> None:
    losses, _ = trained("cpu", OPTIMIZERS[name], 6)
    before = torch.counters()
    on_cuda, model = trained("cuda", OPTIMIZERS[name], 6, compiled=True)
    after = torch.counters()
    assert on_cuda == losses
    assert after["replays"] - before["replays"] >= 4
    assert all(p.is_cuda and p.grad.is_cuda for p in model.parameters())


def compiled_step() -> tuple[Any, Any, Any]:
    """A network on the device, its optimizer, and a compiled step of it."""
    model = network().cuda()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    x, y = torch.tensor(X, device="cuda"), torch.tensor(Y, device="cuda")

    @torch.compile
    def step() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, optimizer, step


def test_a_replay_is_one_program_between_transfers() -> None:
    _, _, step = compiled_step()
    for _ in range(3):
        step()
    (entries,) = step._entries.values()
    replay = entries[0]
    assert replay._main is not None and len(replay._segments) == 2


def test_settings_written_between_replays_are_read() -> None:
    x = torch.ones(3, device="cuda", requires_grad=True)
    optimizer = optim.SGD([x], lr=1.0)

    @torch.compile
    def step() -> None:
        optimizer.zero_grad()
        x.sum().backward()
        optimizer.step()

    for rate in (1.0, 1.0, 0.5, 0.25):
        optimizer.param_groups[0]["lr"] = rate
        step()
    assert x.tolist() == [-1.75] * 3


def test_compiled_functions_tell_devices_apart() -> None:
    f = torch.compile(lambda a, b: (a * b).sum())
    for device in ("cpu", "cuda:0", "cuda:1", "cpu", "cuda:0"):
        x = torch.arange(4.0, device=device)
        made = f(x, x)
        assert made.item() == 14.0 and str(made.device) == device
    assert f(torch.arange(8.0, device="cuda")[4:], torch.ones(4, device="cuda")).item() == 22.0


def test_compiled_draws_follow_the_generator() -> None:
    f = torch.compile(lambda x: x + torch.rand(3, device="cuda"))
    torch.manual_seed(1)
    x = torch.zeros(3, device="cuda")
    made = [f(x).tolist() for _ in range(3)]
    torch.manual_seed(1)
    assert made == [torch.rand(3).tolist() for _ in range(3)]


def test_a_module_moves_with_all_it_has() -> None:
    model = network()
    weight = model[0].weight
    model(torch.tensor(X)).sum().backward()
    assert model.cuda(1) is model and model[0].weight is weight
    for tensor in (weight, weight.grad, model[1].running_mean, model[1].num_batches_tracked):
        assert tensor.get_device() == 1
    model.to("cuda:0", torch.float64)
    assert weight.dtype == torch.float64 and weight.get_device() == 0
    assert model[1].num_batches_tracked.dtype == torch.int64
    model.cpu()
    assert not any(t.is_cuda for t in model.state_dict().values())
    made = nn.Linear(3, 2, device="cuda")
    assert made.weight.is_cuda and made.weight.requires_grad and made.weight.is_leaf


def test_recurrent_modules() -> None:
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        torch.manual_seed(0)
        layer = kind(4, 6, batch_first=True)
        x = torch.randn(2, 5, 4)
        expected = layer(x)[0]
        made = layer.cuda()(x.cuda())[0]
        assert made.is_cuda
        np.testing.assert_array_equal(made.detach().cpu().numpy(), expected.detach().numpy())


def test_wrong_devices_are_told_with_the_line() -> None:
    with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cpu!") as caught:
        nn.Linear(5, 2).cuda()(torch.tensor(X))
    assert "test_cuda_training.py" in str(caught.value)
    x = torch.ones(2, device="cuda")
    with pytest.raises(RuntimeError, match="located on a different device"):
        x.grad = torch.ones(2)


def test_state_goes_between_devices() -> None:
    make = OPTIMIZERS["Adam"]
    _, source = trained("cuda", make)
    target = network()
    target.load_state_dict(source.state_dict())
    for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        assert not b.is_cuda and a.cpu().tolist() == b.tolist()
    model = network().cuda()
    optimizer = make(model.parameters())
    model(torch.tensor(X, device="cuda")).sum().backward()
    optimizer.step()
    assert all(v.is_cuda for state in optimizer.state.values() for v in state.values())
    other = make(network().parameters())
    other.load_state_dict(optimizer.state_dict())
    assert not any(v.is_cuda for state in other.state.values() for v in state.values())
    optimizer.load_state_dict(other.state_dict())
    assert all(v.is_cuda for state in optimizer.state.values() for v in state.values())


def saved(value: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def test_files_say_where_tensors_were() -> None:
    x = torch.arange(6.0, device="cuda:1")
    value = {"whole": x, "part": x[2:4], "cpu": torch.ones(2)}
    made = torch.load(saved(value))
    assert (made["whole"].get_device(), made["part"].get_device(), made["cpu"].get_device()) == (1, 1, -1)
    made["whole"].zero_()
    assert made["part"].tolist() == [0.0, 0.0]
    chosen: list[tuple[Any, str]] = [
        ("cpu", "cpu"),
        (torch.device("cuda:0"), "cuda:0"),
        ({"cuda:1": "cuda:0"}, "cuda:0"),
        (lambda storage, location: storage, "cpu"),
        (lambda storage, location: None, "cuda:1"),
    ]
    for location, expected in chosen:
        made = torch.load(saved(value), map_location=location)
        assert str(made["part"].device) == expected and made["part"].tolist() == [2.0, 3.0]


def test_a_file_of_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc_runtime.devices.cuda import register_cuda_driver
    from tests.runtime.recording_driver import RecordingDriver

    file = saved(torch.ones(2, device="cuda"))
    before = register_cuda_driver(RecordingDriver(missing="no driver"))
    try:
        with pytest.raises(RuntimeError, match=r"Attempting to deserialize object on a CUDA device .*no driver"):
            torch.load(file)
        file.seek(0)
        assert torch.load(file, map_location="cpu").tolist() == [1.0, 1.0]
    finally:
        register_cuda_driver(before)


def test_batches_in_pinned_memory(cuda: list[RecordingDevice]) -> None:
    data = TensorDataset(torch.arange(6.0).reshape(6, 1), torch.arange(6))
    for x, y in DataLoader(data, batch_size=3, pin_memory=True):
        assert x.is_pinned() and y.is_pinned() and x.pin_memory() is x
        assert x.to("cuda", non_blocking=True).sum().item() == x.sum().item()
    assert not torch.ones(2).is_pinned() and torch.ones(2).pin_memory().is_pinned()
    with pytest.raises(RuntimeError, match="only dense CPU tensors can be pinned"):
        torch.ones(2, device="cuda").pin_memory()


def test_checks_of_values_wait_for_somebody_who_looks() -> None:
    scores = torch.zeros(2, 3, device="cuda")
    loss = nn.functional.cross_entropy(scores, torch.tensor([0, 3], device="cuda"))
    torch.zeros(2, device="cuda").sum()
    current().flush("")
    assert current().late
    with pytest.raises(IndexError, match=r"Target \d+ is out of bounds"):
        loss.item()
    assert not current().late
    assert nn.functional.cross_entropy(scores, torch.tensor([0, 2], device="cuda")).item() > 1


def test_clipping_and_scheduling() -> None:
    results = []
    for device in ("cpu", "cuda"):
        model = network().to(device)
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                model(torch.tensor(X, device=device)), torch.tensor(Y, device=device)
            ).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            scheduler.step()
        results.append((norm.item(), [p.tolist() for p in model.parameters()]))
    assert results[0] == results[1]


def test_settings_move_only_when_they_change() -> None:
    x = torch.ones(3, device="cuda", requires_grad=True)
    optimizer = optim.SGD([x], lr=0.25)

    @torch.compile
    def step() -> None:
        optimizer.zero_grad()
        (x * x).sum().backward()
        optimizer.step()

    moved = []
    for rate in (0.25, 0.25, 0.25, 0.125, 0.125, 0.25):
        optimizer.param_groups[0]["lr"] = rate
        before = torch.counters()["transfers"]
        step()
        moved.append(torch.counters()["transfers"] - before)
    assert moved == [1, 0, 0, 1, 0, 1]
    y = torch.ones(3, requires_grad=True)
    for rate in (0.25, 0.25, 0.25, 0.125, 0.125, 0.25):
        y.data -= rate * 2 * y.data
    assert x.tolist() == y.tolist()


def test_checks_that_nobody_looks_at_are_looked_at_when_they_are_many() -> None:
    table = torch.ones(4, 2, device="cuda")

    @torch.compile
    def looked_up(index: Any) -> Any:
        return nn.functional.embedding(index, table)

    good, bad = torch.tensor([0, 3], device="cuda"), torch.tensor([0, 4], device="cuda")
    for _ in range(3):
        looked_up(good)
    made = looked_up(bad)
    assert current().late
    with pytest.raises(IndexError, match="index out of range"):
        for _ in range(1000):
            looked_up(good)
    assert made.shape == (2, 2) and looked_up(good).tolist() == [[1, 1], [1, 1]]


def test_steps_find_their_memory_where_it_was() -> None:
    model, optimizer, step = compiled_step()

    def addresses() -> list[int]:
        held = [v for state in optimizer.state.values() for v in state.values()]
        return [t.data_ptr() for p in model.parameters() for t in (p, p.grad)] + [v.data_ptr() for v in held]

    for _ in range(4):
        step()
    found = []
    for _ in range(6):
        step()
        found.append(addresses())
    assert found[0] == found[2] == found[4] and found[1] == found[3] == found[5]
    assert found[0] != found[1]
