"""Module and the containers against PyTorch: what is registered, printed, saved, loaded and refused."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn
from tests.differential.compare import torch
from tests.differential.modules import same


def net(library: Any) -> Any:
    nn = library.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 3)
            self.body = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
            self.scale = nn.Parameter(library.ones(2))
            self.register_buffer("seen", library.zeros(1))
            self.register_buffer("scratch", library.zeros(1), persistent=False)
            self.register_parameter("nothing", None)
            self.register_buffer("empty", None)
            self.tied = self.first
            self.plain = 3

        def forward(self, x):
            return self.body(self.first(x))

    return Net()


def doing(change: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """`change(library, model)` on a fresh model, and what the model then looks like."""

    def function(library: Any) -> Any:
        model = net(library)
        made = change(library, model)
        return made if not isinstance(made, library.nn.Module) else repr(made), repr(model), list(model.state_dict())

    return function


WALKS = {
    "parameters": lambda t, m: [n for n, _ in m.named_parameters()],
    "parameters_prefix": lambda t, m: [n for n, _ in m.named_parameters("x")],
    "parameters_own": lambda t, m: [n for n, _ in m.named_parameters(recurse=False)],
    "parameters_all": lambda t, m: [n for n, _ in m.named_parameters(remove_duplicate=False)],
    "buffers": lambda t, m: [n for n, _ in m.named_buffers()],
    "buffers_all": lambda t, m: [n for n, _ in m.named_buffers("p", False, False)],
    "modules": lambda t, m: [n for n, _ in m.named_modules()],
    "modules_all": lambda t, m: [n for n, _ in m.named_modules(prefix="p", remove_duplicate=False)],
    "children": lambda t, m: [n for n, _ in m.named_children()],
    "submodule": lambda t, m: m.get_submodule("body.1"),
    "submodule_self": lambda t, m: m.get_submodule("") is m,
    "submodule_missing": lambda t, m: m.get_submodule("body.2"),
    "submodule_no_module": lambda t, m: m.get_submodule("plain"),
    "parameter": lambda t, m: m.get_parameter("body.0.weight") is m.body[0].weight,
    "parameter_missing": lambda t, m: m.get_parameter("body.0.mass"),
    "parameter_no_parameter": lambda t, m: m.get_parameter("seen"),
    "buffer": lambda t, m: m.get_buffer("seen") is m.seen,
    "buffer_no_buffer": lambda t, m: m.get_buffer("scale"),
    "set_submodule": lambda t, m: m.set_submodule("body.1", t.nn.Tanh()),
    "set_submodule_new": lambda t, m: m.set_submodule("body.new", t.nn.Tanh()),
    "set_submodule_strict": lambda t, m: m.set_submodule("body.new", t.nn.Tanh(), strict=True),
    "set_submodule_plain": lambda t, m: m.set_submodule("plain", t.nn.Tanh()),
    "set_submodule_nothing": lambda t, m: m.set_submodule("", t.nn.Tanh()),
    "set_submodule_number": lambda t, m: m.set_submodule("first", 3),
    "dir": lambda t, m: [n for n in dir(m) if n in ("first", "scale", "seen", "scratch", "plain", "nothing", "0")],
    "train": lambda t, m: [[x.training for x in m.train(on).modules()] for on in (False, True)],
    "train_number": lambda t, m: m.train(1),
    "apply": lambda t, m: (order := [], m.apply(lambda x: order.append(type(x).__name__)))[0],
    "frozen": lambda t, m: [p.requires_grad for p in m.requires_grad_(False).parameters()],
    "extra_state": lambda t, m: m.state_dict(prefix="a.").keys(),
    "keep_vars": lambda t, m: [v.requires_grad for v in m.state_dict(keep_vars=True).values()],
    "positional": lambda t, m: list(m.state_dict(None, "p.")),
    "metadata": lambda t, m: m.state_dict()._metadata,
}  # fmt: skip


@pytest.mark.parametrize("name", WALKS)
def test_walks(name: str) -> None:
    same(doing(WALKS[name]))


CHANGES = {
    "tensor_as_parameter": lambda t, m: setattr(m, "scale", t.ones(2)),
    "number_as_child": lambda t, m: setattr(m, "first", 3),
    "tensor_as_child": lambda t, m: setattr(m, "first", t.ones(1)),
    "number_as_buffer": lambda t, m: setattr(m, "seen", 3.0),
    "none_as_parameter": lambda t, m: setattr(m, "scale", None),
    "none_as_child": lambda t, m: setattr(m, "first", None),
    "none_as_buffer": lambda t, m: setattr(m, "seen", None),
    "parameter_over_plain": lambda t, m: (setattr(m, "plain", t.nn.Parameter(t.ones(1))), "plain" in m.__dict__)[1],
    "parameter_over_buffer": lambda t, m: (setattr(m, "seen", t.nn.Parameter(t.ones(1))), len(list(m.buffers())))[1],
    "parameter_over_child": lambda t, m: setattr(m, "first", t.nn.Parameter(t.ones(1))),
    "child_over_parameter": lambda t, m: setattr(m, "scale", t.nn.ReLU()),
    "parameter_for_none": lambda t, m: setattr(m, "nothing", t.nn.Parameter(t.ones(1))),
    "buffer_object": lambda t, m: setattr(m, "b", t.nn.Buffer(t.ones(1))),
    "transient_buffer": lambda t, m: (setattr(m, "c", t.nn.Buffer(persistent=False)), len([*m.buffers()]))[1:],
    "transient_stays": lambda t, m: setattr(m, "scratch", t.ones(3)),
    "delete_parameter": lambda t, m: delattr(m, "scale"),
    "delete_child": lambda t, m: delattr(m, "first"),
    "delete_buffer": lambda t, m: delattr(m, "scratch"),
    "delete_missing": lambda t, m: m.missing,
    "non_leaf": lambda t, m: m.register_parameter("w", m.scale * 2),
    "register_number": lambda t, m: m.register_parameter("w", 3),
    "register_tensor": lambda t, m: m.register_parameter("w", t.ones(1, dtype=t.float64)),
    "register_dot": lambda t, m: m.register_parameter("a.b", None),
    "register_nothing": lambda t, m: m.register_parameter("", None),
    "register_taken": lambda t, m: m.register_parameter("plain", None),
    "register_no_name": lambda t, m: m.register_parameter(3, None),
    "buffer_number": lambda t, m: m.register_buffer("w", 3),
    "buffer_dot": lambda t, m: m.register_buffer("a.b", None),
    "buffer_nothing": lambda t, m: m.register_buffer("", None),
    "buffer_taken": lambda t, m: m.register_buffer("scale", None),
    "buffer_no_name": lambda t, m: m.register_buffer(None, None),
    "module_number": lambda t, m: m.add_module("w", 3),
    "module_dot": lambda t, m: m.add_module("a.b", None),
    "module_nothing": lambda t, m: m.register_module("", None),
    "module_taken": lambda t, m: m.add_module("forward", None),
    "module_no_name": lambda t, m: m.add_module(1.5, None),
    "to_integer": lambda t, m: m.to(t.int64),
    "to_double": lambda t, m: [p.dtype for p in m.to(t.float64).parameters()],
    "to_like": lambda t, m: [p.dtype for p in m.to(t.ones(1, dtype=t.float16)).parameters()],
    "half": lambda t, m: [p.dtype for p in m.half().buffers()],
    "bfloat16": lambda t, m: [p.dtype for p in m.bfloat16().parameters()],
    "type": lambda t, m: [p.dtype for p in m.type(t.float64).parameters()],
    "arguments": lambda t, m: t.nn.Module(3),
    "keywords": lambda t, m: t.nn.Module(size=3),
    "no_forward": lambda t, m: t.nn.Module()(1),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_changes(name: str) -> None:
    same(doing(CHANGES[name]))


@pytest.mark.parametrize("what", ["parameter", "module", "buffer"])
def test_before_init(what: str) -> None:
    def function(library: Any) -> Any:
        nn = library.nn

        class Late(nn.Module):
            def __init__(self) -> None:
                if what == "parameter":
                    self.w = nn.Parameter(library.ones(1))
                elif what == "module":
                    self.w = nn.ReLU()
                else:
                    self.register_buffer("w", library.ones(1))

        return Late()

    assert "before Module.__init__() call" in same(function)


def state(library: Any, **changes: Any) -> Any:
    made = OrderedDict((k, library.full(tuple(v.shape), 2.0)) for k, v in net(library).state_dict().items())
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del made[name]
        else:
            made[name] = value
    return made


LOADS = {
    "all": lambda t, m: m.load_state_dict(state(t)),
    "missing": lambda t, m: m.load_state_dict(state(t, scale=None, body__0__bias=None)),
    "unexpected": lambda t, m: m.load_state_dict(state(t, head__x=t.ones(1), extra=t.ones(2), body__0__more=t.ones(1))),
    "sizes": lambda t, m: m.load_state_dict(state(t, scale=t.ones(3), seen=t.ones(1, 1))),
    "everything": lambda t, m: m.load_state_dict(state(t, scale=t.ones(3), seen=None, more=t.ones(1))),
    "loose": lambda t, m: m.load_state_dict(state(t, scale=None, more=t.ones(1)), strict=False),
    "number": lambda t, m: m.load_state_dict(state(t, scale=3)),
    "list": lambda t, m: m.load_state_dict([1]),
    "assign": lambda t, m: (given := state(t, scale=t.nn.Parameter(t.ones(2), requires_grad=False)),
                            m.load_state_dict(given, assign=True), m.scale is given["scale"], m.seen is given["seen"],
                            [p.requires_grad for p in m.parameters()], m.seen.item())[1:],
    "keys": lambda t, m: tuple(m.load_state_dict({}, strict=False)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADS)
def test_loading(name: str) -> None:
    same(doing(LOADS[name]))


def test_extra_state_and_overridden_saving() -> None:
    def function(library: Any) -> Any:
        class Counter(library.nn.Module):
            _version = 3

            def __init__(self) -> None:
                super().__init__()
                self.count = 7
                self.w = library.nn.Parameter(library.ones(1))

            def get_extra_state(self):
                return {"count": self.count}

            def set_extra_state(self, state):
                self.count = state["count"]

            def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
                self.seen_version = local_metadata.get("version")
                super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

        a, b = library.nn.Sequential(Counter()), library.nn.Sequential(Counter())
        a[0].count = 9
        saved = a.state_dict()
        b.load_state_dict(saved)
        plain = {k: v for k, v in saved.items() if "extra" not in k}
        return (
            list(saved),
            saved["0._extra_state"],
            b[0].count,
            b[0].seen_version,
            b.load_state_dict(plain, strict=False),
        )

    same(function)


CONTAINERS = {
    "sequential": lambda t, nn: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
    "named": lambda t, nn: nn.Sequential(OrderedDict([("a", nn.ReLU()), ("b", nn.Tanh())])),
    "nested": lambda t, nn: nn.Sequential(nn.Sequential(nn.ReLU(), nn.Tanh()), nn.ModuleList([nn.ReLU()] * 3)),
    "slice": lambda t, nn: nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())[1:],
    "slice_named": lambda t, nn: nn.Sequential(OrderedDict([("a", nn.ReLU()), ("b", nn.Tanh())]))[:1],
    "append": lambda t, nn: nn.Sequential(nn.ReLU()).append(nn.Tanh()),
    "extend": lambda t, nn: nn.Sequential(nn.ReLU()).extend([nn.Tanh(), nn.ReLU()]),
    "insert": lambda t, nn: nn.Sequential(nn.ReLU(), nn.ReLU()).insert(1, nn.Tanh()),
    "insert_negative": lambda t, nn: nn.Sequential(nn.ReLU(), nn.ReLU()).insert(-1, nn.Tanh()),
    "insert_far": lambda t, nn: nn.Sequential(nn.ReLU()).insert(3, nn.Tanh()),
    "add": lambda t, nn: nn.Sequential(nn.ReLU()) + nn.Sequential(nn.Tanh()),
    "add_list": lambda t, nn: nn.Sequential(nn.ReLU()).__add__([nn.Tanh()]),
    "mul": lambda t, nn: nn.Sequential(nn.ReLU(), nn.Tanh()) * 2,
    "rmul": lambda t, nn: 2 * nn.Sequential(nn.ReLU()),
    "mul_zero": lambda t, nn: nn.Sequential(nn.ReLU()) * 0,
    "dict": lambda t, nn: nn.Sequential({"a": nn.ReLU()}),
    "far": lambda t, nn: nn.Sequential(nn.ReLU())[3],
    "number": lambda t, nn: nn.Sequential(3),
    "list": lambda t, nn: nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU()]),
    "list_slice": lambda t, nn: nn.ModuleList([nn.ReLU(), nn.Tanh(), nn.ReLU()])[::2],
    "list_add": lambda t, nn: nn.ModuleList([nn.ReLU()]) + nn.ModuleList([nn.Tanh()]),
    "list_extend_number": lambda t, nn: nn.ModuleList().extend(3),
    "list_far": lambda t, nn: nn.ModuleList([nn.ReLU()])[-2],
    "list_call": lambda t, nn: nn.ModuleList([nn.ReLU()])(1),
    "list_empty": lambda t, nn: nn.ModuleList(),
    "modules": lambda t, nn: nn.ModuleDict({"b": nn.ReLU(), "a": nn.Tanh()}),
    "modules_pairs": lambda t, nn: nn.ModuleDict([["b", nn.ReLU()], ["a", nn.Tanh()]]),
    "modules_number": lambda t, nn: nn.ModuleDict(3),
    "modules_element": lambda t, nn: nn.ModuleDict([3]),
    "modules_length": lambda t, nn: nn.ModuleDict([(1, 2, 3)]),
    "modules_taken": lambda t, nn: nn.ModuleDict({"keys": nn.ReLU()}),
    "modules_missing": lambda t, nn: nn.ModuleDict({})["x"],
    "parameters": lambda t, nn: nn.ParameterList([t.ones(2, 3), nn.Parameter(t.ones(2, dtype=t.float64)), 3]),
    "parameters_slice": lambda t, nn: nn.ParameterList([t.ones(i) for i in range(4)])[1:3],
    "parameters_far": lambda t, nn: nn.ParameterList([t.ones(2)])[1],
    "parameters_call": lambda t, nn: nn.ParameterList([t.ones(2)])(),
    "parameters_tensor": lambda t, nn: nn.ParameterList().extend(t.ones(2)),
    "parameters_number": lambda t, nn: nn.ParameterList().extend(2),
    "parameters_append": lambda t, nn: nn.ParameterList().append(t.ones(2)).append(t.ones(1)),
    "pdict": lambda t, nn: nn.ParameterDict({"a": t.ones(2, 3), "c": 3}),
    "pdict_pairs": lambda t, nn: nn.ParameterDict([("a", t.ones(2, 3)), ("b", t.ones(1))]),
    "pdict_or": lambda t, nn: nn.ParameterDict({"a": t.ones(2)}) | nn.ParameterDict({"b": t.ones(1)}),
    "pdict_number": lambda t, nn: nn.ParameterDict({3: t.ones(2)}),
    "pdict_element": lambda t, nn: nn.ParameterDict([3]),
    "pdict_length": lambda t, nn: nn.ParameterDict([(1, 2, 3)]),
    "pdict_iterable": lambda t, nn: nn.ParameterDict(3),
    "pdict_call": lambda t, nn: nn.ParameterDict()(3),
    "pdict_fromkeys": lambda t, nn: nn.ParameterDict().fromkeys(["a", "b"], t.ones(1)),
    "parameter": lambda t, nn: nn.Parameter(t.ones(2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name: str) -> None:
    def function(library: Any) -> Any:
        made = CONTAINERS[name](library, library.nn)
        keys = list(made.state_dict()) if isinstance(made, library.nn.Module) else None
        return repr(made), keys

    same(function)


def test_containers_change_in_place() -> None:
    def function(library: Any) -> Any:
        nn = library.nn
        a = nn.Sequential(OrderedDict([("x", nn.ReLU()), ("y", nn.Tanh()), ("z", nn.Sigmoid())]))
        a[1] = nn.GELU()
        seen = [repr(a)]
        del a[0]
        seen.append(repr(a))
        a += nn.Sequential(nn.ReLU())
        a *= 2
        seen += [repr(a.pop(0)), repr(a)]
        del a[1:3]
        seen.append(repr(a))
        b = nn.ModuleList([nn.ReLU(), nn.Tanh()])
        b.insert(1, nn.GELU())
        b += [nn.SiLU()]
        b[-1] = nn.Sigmoid()
        seen += [repr(b.pop(0)), repr(b), len(b)]
        del b[0]
        c = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
        seen += [repr(b), repr(c.pop("a")), list(c.keys()), "b" in c, [type(v).__name__ for v in c.values()]]
        c.clear()
        d = nn.ParameterDict({"a": library.ones(1), "b": 2})
        seen += [
            len(c),
            d.setdefault("c", 4),
            d.pop("b"),
            d.popitem(),
            list(d),
            d.get("z", 5),
            list(reversed(d)),
            "a" in d,
        ]
        e = nn.ParameterList([library.ones(1), library.ones(2)])
        e[0] = library.zeros(3)
        e += [library.ones(4)]
        return seen, repr(e), repr(d)

    same(function)


def test_copies_and_pickles() -> None:
    model = net(graphc)
    pickled = pickle.loads(pickle.dumps(graphc.nn.Sequential(graphc.nn.Linear(2, 2))))  # noqa: S301
    for other in (copy.deepcopy(model), pickled):
        assert all(p.requires_grad for p in other.parameters())
    other = copy.deepcopy(model)
    assert other.tied is other.first and other.first is not model.first
    assert repr(other) == repr(model)
    assert other.scale.data_ptr() != model.scale.data_ptr() and other.scale.tolist() == model.scale.tolist()
    other.new = graphc.nn.ReLU()
    assert not hasattr(model, "new")


def test_batch_norm_that_no_longer_tracks() -> None:
    def program(t: Any) -> list[Any]:
        layer, seen = t.nn.BatchNorm1d(2, momentum=None), []
        x = t.tensor([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]])
        for on in (True, False, False, True):
            layer.track_running_stats = on
            seen += [layer(x).tolist(), *(b.tolist() for b in layer.buffers())]
        layer.track_running_stats = False
        layer.reset_running_stats()
        return [*seen, *(b.tolist() for b in layer.eval().buffers()), layer(x).tolist()]

    for found, wanted in zip(program(graphc), program(torch), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
