"""Module: registration, walks, state dictionaries, printing, and the counter that guards watch."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc.errors import UsageError
from graphc.nn.module import attribute_version


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    def forward(self, x):
        return self.body(self.first(x))


def test_names_come_in_the_order_of_assignment() -> None:
    net = Net()
    names = ["scale", "first.weight", "first.bias", "body.0.weight", "body.0.bias"]
    assert [name for name, _ in net.named_parameters()] == names
    assert [name for name, _ in net.named_buffers()] == ["seen", "scratch"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "body", "body.0", "body.1"]
    assert [name for name, _ in net.named_children()] == ["first", "body"]
    assert list(net.state_dict()) == ["scale", "seen", "first.weight", "first.bias", "body.0.weight", "body.0.bias"]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert net.get_parameter("body.0.weight") is net.body[0].weight
    assert net.get_submodule("body.1") is net.body[1]
    with pytest.raises(AttributeError, match="Net has no attribute `head`"):
        net.get_submodule("head.0")


def test_a_shared_parameter_appears_once_but_is_saved_under_both_names() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    twice = nn.Sequential(net[0], net[0])
    assert len(list(twice.modules())) == 2
    assert len(list(twice.parameters())) == 2
    assert list(twice.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_attributes_move_between_kinds_only_when_that_makes_sense() -> None:
    net = Net()
    with pytest.raises(
        TypeError,
        match=r"cannot assign 'torch.FloatTensor' as parameter 'scale' \(torch.nn.Parameter or None expected\)",
    ):
        net.scale = torch.ones(2)
    with pytest.raises(TypeError, match="cannot assign 'int' as child module 'first'"):
        net.first = 3
    with pytest.raises(TypeError, match="cannot assign 'int' as buffer 'seen'"):
        net.seen = 3
    net.scale = None
    assert net.scale is None and "scale" not in dict(net.named_parameters())
    net.plain = 3
    net.plain = nn.Parameter(torch.ones(1))
    assert "plain" in dict(net.named_parameters()) and "plain" not in net.__dict__
    del net.first
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'first'"):
        _ = net.first
    with pytest.raises(KeyError, match="buffer name can"):
        net.register_buffer("a.b", None)
    with pytest.raises(KeyError, match="attribute 'forward' already exists"):
        net.add_module("forward", nn.ReLU())


def test_parameters_before_init_are_refused() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            self.w = nn.Parameter(torch.ones(1))

    with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__\(\) call"):
        Late()


def test_forward_is_required() -> None:
    with pytest.raises(NotImplementedError, match=r'Module \[Module\] is missing the required "forward" function'):
        nn.Module()(torch.ones(1))


def test_state_dict_round_trip_shares_on_saving_and_copies_on_loading() -> None:
    a, b = Net(), Net()
    saved = a.state_dict()
    assert not any(value.requires_grad for value in saved.values())
    assert saved["scale"].data_ptr() == a.scale.data_ptr()
    with torch.no_grad():
        a.scale.mul_(3)
        a.seen.add_(1)
    assert repr(b.load_state_dict(saved)) == "<All keys matched successfully>"
    assert b.scale.tolist() == [3.0, 3.0] and b.seen.tolist() == [1.0]
    assert b.scale.requires_grad and b.scale.data_ptr() != a.scale.data_ptr()
    x = torch.ones(2, 3)
    assert np.array_equal(a(x).detach().numpy(), b(x).detach().numpy())


def test_load_state_dict_reports_everything_at_once() -> None:
    layer = nn.Linear(2, 2)
    wrong = {"weight": torch.ones(3), "extra": torch.ones(2)}
    with pytest.raises(UsageError) as caught:
        layer.load_state_dict(wrong)
    assert caught.value.message == (
        "Error(s) in loading state_dict for Linear:\n"
        '\tMissing key(s) in state_dict: "bias". \n'
        '\tUnexpected key(s) in state_dict: "extra". \n'
        "\tsize mismatch for weight: copying a param with shape torch.Size([3]) from checkpoint, "
        "the shape in current model is torch.Size([2, 2])."
    )
    keys = layer.load_state_dict({"weight": torch.zeros(2, 2), "extra": torch.ones(2)}, strict=False)
    assert keys.missing_keys == ["bias"] and keys.unexpected_keys == ["extra"]
    assert layer.weight.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    with pytest.raises(RuntimeError, match=r"expected torch\.Tensor or Tensor-like object"):
        layer.load_state_dict({"weight": 1, "bias": torch.ones(2)})
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like"):
        layer.load_state_dict([1])  # type: ignore[arg-type]


def test_train_eval_apply_and_gradients() -> None:
    net = Net()
    assert net.eval() is net and not any(module.training for module in net.modules())
    assert all(module.training for module in net.train().modules())
    with pytest.raises(ValueError, match="training mode is expected to be boolean"):
        net.train(1)  # type: ignore[arg-type]
    order: list[str] = []
    net.apply(lambda module: order.append(type(module).__name__))
    assert order[-1] == "Net" and order.index("ReLU") < order.index("Sequential")
    net(torch.ones(2, 3)).sum().backward()
    assert net.first.weight.grad is not None
    net.zero_grad(set_to_none=False)
    assert net.first.weight.grad.abs().sum().item() == 0
    net.zero_grad()
    assert net.first.weight.grad is None
    net.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_conversion_keeps_the_parameter_objects() -> None:
    net = Net()
    before = list(net.parameters())
    net.double()
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    assert net.first.weight.dtype == torch.float64 and net.seen.dtype == torch.float64
    assert net(torch.ones(1, 3, dtype=torch.float64)).dtype == torch.float64
    norm = nn.BatchNorm1d(2).to(torch.float64)
    assert norm.running_mean.dtype == torch.float64 and norm.num_batches_tracked.dtype == torch.int64
    with pytest.raises(TypeError, match="only accepts floating point or complex dtypes"):
        net.to(torch.int64)
    assert net.float().first.weight.dtype == torch.float32


def test_deep_copies_are_independent() -> None:
    net = Net()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        net.scale.add_(1)
    assert twin.scale.tolist() == [1.0, 1.0] and isinstance(twin.scale, nn.Parameter)


def test_printing() -> None:
    text = """Net(
  (first): Linear(in_features=3, out_features=4, bias=True)
  (body): Sequential(
    (0): Linear(in_features=4, out_features=4, bias=True)
    (1): ReLU()
  )
)"""
    assert repr(Net()) == text
    blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(inplace=True)])
    assert repr(blocks) == (
        "ModuleList(\n  (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)\n  (2): ReLU(inplace=True)\n)"
    )
    assert repr(nn.Sequential()) == "Sequential()"


def test_containers() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.ReLU()))
    assert [name for name, _ in net.named_children()] == ["a", "b"] and net.a is net[0] and net[-1] is net.b
    assert type(net[:1]) is nn.Sequential and len(net[:1]) == 1
    net = nn.Sequential(nn.ReLU()).append(nn.Tanh()).extend([nn.Sigmoid()])
    net.insert(0, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Identity", "ReLU", "Tanh", "Sigmoid"]
    assert type(net.pop(1)).__name__ == "ReLU" and list(net.state_dict()) == []
    del net[0]
    assert [name for name, _ in net.named_children()] == ["0", "1"]
    with pytest.raises(IndexError, match="index 5 is out of range"):
        net[5]
    blocks = nn.ModuleList([nn.ReLU()])
    blocks += [nn.Tanh()]
    blocks[0] = nn.Sigmoid()
    assert [type(m).__name__ for m in blocks + nn.ModuleList([nn.ReLU()])] == ["Sigmoid", "Tanh", "ReLU"]
    named = nn.ModuleDict({"x": nn.ReLU()})
    named["y"] = nn.Tanh()
    assert list(named) == ["x", "y"] and "x" in named and len(named) == 2
    del named["x"]
    assert list(named.keys()) == ["y"]


def test_guards_see_every_attribute_that_changes() -> None:
    net = Net()
    start = attribute_version()
    net(torch.ones(1, 3))
    net.train()
    net.training = True
    assert attribute_version() == start, "nothing changed"
    for change in (
        lambda: net.eval(),
        lambda: setattr(net, "rate", 0.5),
        lambda: setattr(net, "scale", nn.Parameter(torch.ones(2))),
        lambda: setattr(net, "seen", torch.ones(1)),
        lambda: net.body.append(nn.ReLU()),
        lambda: net.register_forward_hook(lambda *given: None).remove(),
        lambda: delattr(net, "rate"),
    ):
        before = attribute_version()
        change()
        assert attribute_version() > before


def test_hooks_run_around_forward_in_their_order() -> None:
    net = nn.Sequential(nn.Identity())
    seen: list[str] = []
    net.register_forward_pre_hook(lambda m, a: seen.append("pre"))
    net.register_forward_pre_hook(lambda m, a: (a[0] + 1,), prepend=True)
    net.register_forward_pre_hook(lambda m, a, k: (seen.append(f"{a[0].item()}"), (a, k))[1], with_kwargs=True)
    doubled = net.register_forward_hook(lambda m, a, out: out * 2)
    net.register_forward_hook(lambda m, a, k, out: seen.append(f"{out.item()}"), with_kwargs=True)
    assert net(torch.ones(1)).item() == 4 and seen == ["pre", "2.0", "4.0"]
    doubled.remove()
    assert net(torch.ones(1)).item() == 2
    with net.register_forward_hook(lambda m, a, out: out * 10):
        assert net(torch.ones(1)).item() == 20
    assert net(torch.ones(1)).item() == 2
    net.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple"):
        net(torch.ones(1))


def test_hooks_that_are_always_called() -> None:
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("broken")

    net = Broken()
    seen: list[object] = []
    net.register_forward_hook(lambda m, a, out: seen.append("never"))
    net.register_forward_hook(lambda m, a, out: seen.append(out), always_call=True)
    with pytest.raises(ValueError, match="broken"):
        net(torch.ones(1))
    assert seen == [None]


def test_hooks_of_saving_and_loading() -> None:
    net = nn.Sequential(nn.Linear(1, 1))
    seen: list[object] = []
    net.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append((prefix, keep)))
    net[0].register_state_dict_post_hook(lambda m, held, prefix, local: held.update({prefix + "more": torch.ones(1)}))
    saved = net.state_dict(prefix="")
    assert list(saved) == ["0.weight", "0.bias", "0.more"] and seen == [("", False)]

    def rename(module, held, prefix, local, strict, missing, unexpected, errors):
        held.pop(prefix + "more")

    net[0].register_load_state_dict_pre_hook(rename)
    net.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    del saved["0.bias"]
    assert repr(net.load_state_dict(saved)) == "<All keys matched successfully>"


def test_a_compiled_step_sees_hooks_come_and_go() -> None:
    net = nn.Linear(2, 1)
    step = torch.compile(lambda x: net(x).sum())
    x = torch.ones(3, 2)
    plain = [step(x).item() for _ in range(3)][-1]
    handle = net.register_forward_hook(lambda m, a, out: out * 2)
    assert step(x).item() == pytest.approx(2 * plain)
    handle.remove()
    assert step(x).item() == pytest.approx(plain)
