"""`nn.utils` against PyTorch: clipping, vectors, normalised weights, parametrizations, calls with other tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.compare import floats, to, torch
from tests.differential.modules import compare, outcome, pair, same

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")


def with_gradients(t: Any) -> list[Any]:
    made = [t.nn.Parameter(to(t, floats(*shape))) for shape in ((2, 3), (4,), (1,))]
    for place, parameter in enumerate(made[:2]):
        parameter.grad = to(t, floats(*parameter.shape, seed=place + 1)) * 3
    return made


def grads(parameters: Any) -> list[Any]:
    return [None if p.grad is None else np.round(p.grad.numpy().astype(float), 4).tolist() for p in parameters]


def clipped(change: Any) -> Any:
    def function(t: Any) -> Any:
        parameters = with_gradients(t)
        made = change(t.nn.utils, parameters)
        return made if made is None else round(made.item(), 4), grads(parameters)

    return function


CLIPS: dict[str, Any] = {
    "norm": lambda u, p: u.clip_grad_norm_(p, 1.0),
    "norm_enough": lambda u, p: u.clip_grad_norm_(p, 100.0),
    "norm_1": lambda u, p: u.clip_grad_norm_(p, 1.0, norm_type=1),
    "norm_inf": lambda u, p: u.clip_grad_norm_(iter(p), 1.0, float("inf")),
    "norm_one": lambda u, p: u.clip_grad_norm_(p[0], 0.5),
    "norm_none": lambda u, p: u.clip_grad_norm_((q for q in p[:0]), 0.5),
    "norm_old": lambda u, p: u.clip_grad_norm(p, 1.0),
    "norm_infinite": lambda u, p: p[0].grad.fill_(float("inf")) is u.clip_grad_norm_(p, 1.0, error_if_nonfinite=True),
    "value": lambda u, p: u.clip_grad_value_(p, 0.5),
    "total": lambda u, p: u.get_total_norm([q.grad for q in p if q.grad is not None]),
    "vector": lambda u, p: u.vector_to_parameters(u.parameters_to_vector(p) * 2, p),
    "vector_number": lambda u, p: u.vector_to_parameters(3, p),
}


@pytest.mark.parametrize("name", CLIPS)
def test_gradients_and_vectors(name: str) -> None:
    same(clipped(CLIPS[name]))


NORMED: dict[str, Any] = {
    "weight": lambda u, m: u.weight_norm(m),
    "weight_dim": lambda u, m: u.weight_norm(m, dim=1),
    "weight_none": lambda u, m: u.weight_norm(m, dim=None),
    "spectral": lambda u, m: u.spectral_norm(m),
    "spectral_more": lambda u, m: u.spectral_norm(m, n_power_iterations=3, dim=1),
    "new_weight": lambda u, m: u.parametrizations.weight_norm(m),
    "new_weight_none": lambda u, m: u.parametrizations.weight_norm(m, dim=None),
    "new_spectral": lambda u, m: u.parametrizations.spectral_norm(m),
}


@pytest.mark.parametrize("name", NORMED)
def test_normalised_weights(name: str) -> None:
    theirs, ours = pair(lambda nn: NORMED[name](nn.utils, nn.Conv1d(2, 3, 2)))
    for _ in range(2):
        compare(theirs, ours, [floats(2, 2, 5)])
    theirs.eval(), ours.eval()
    compare(theirs, ours, [floats(2, 2, 5)])
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for library, module in ((torch, theirs), (graphc, ours)):
        utils = library.nn.utils
        if name.startswith("new"):
            utils.parametrize.remove_parametrizations(module, "weight")
        elif name.startswith("weight"):
            utils.remove_weight_norm(module)
        else:
            utils.remove_spectral_norm(module)
    assert list(ours.state_dict()) == list(theirs.state_dict()) and type(ours) is graphc.nn.Conv1d
    np.testing.assert_allclose(ours.weight.detach().numpy(), theirs.weight.detach().numpy(), rtol=1e-4, atol=1e-5)


def symmetric(t: Any) -> Any:
    class Symmetric(t.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.triu() + x.triu(1).t()

        def right_inverse(self, x: Any) -> Any:
            return x.triu()

    return Symmetric()


def scaled(t: Any, shape: Any = None) -> Any:
    class Scaled(t.nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2 if shape is None else x.reshape(shape)

    return Scaled()


def parametrized(change: Any) -> Any:
    def function(t: Any) -> Any:
        module = t.nn.Linear(2, 2, bias=False)
        module.weight = t.nn.Parameter(to(t, np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)))
        made = change(t, t.nn.utils.parametrize, module)
        return repr(made), repr(module).replace("parametrized", ""), list(module.state_dict()), module.weight.tolist()

    return function


PARAMETRIZED: dict[str, Any] = {
    "one": lambda t, p, m: p.register_parametrization(m, "weight", symmetric(t)),
    "two": lambda t, p, m: [p.register_parametrization(m, "weight", x) for x in (symmetric(t), scaled(t))],
    "shape": lambda t, p, m: p.register_parametrization(m, "weight", scaled(t, (4,))),
    "missing": lambda t, p, m: p.register_parametrization(m, "mass", scaled(t)),
    "removed": lambda t, p, m: p.remove_parametrizations(p.register_parametrization(m, "weight", scaled(t)), "weight"),
    "left": lambda t, p, m: p.remove_parametrizations(
        p.register_parametrization(m, "weight", scaled(t)), "weight", leave_parametrized=False
    ),
    "is": lambda t, p, m: (p.is_parametrized(m), p.register_parametrization(m, "weight", scaled(t)) and 1,
                           p.is_parametrized(m, "weight"), p.is_parametrized(m, "bias"), p.is_parametrized(m)),
    "type": lambda t, p, m: p.type_before_parametrizations(p.register_parametrization(m, "weight", scaled(t))).__name__,
    "assigned": lambda t, p, m: setattr(p.register_parametrization(m, "weight", symmetric(t)), "weight", t.ones(2, 2)),
    "assigned_no_way": lambda t, p, m: setattr(p.register_parametrization(m, "weight", scaled(t)), "weight", m.weight),
    "not_removed": lambda t, p, m: p.remove_parametrizations(m, "weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETRIZED)
def test_parametrize(name: str) -> None:
    assert outcome(parametrized(PARAMETRIZED[name]), graphc).replace("graphc.nn.utils", "torch.nn.utils") == outcome(
        parametrized(PARAMETRIZED[name]), torch
    )


def test_cached_parametrizations_are_computed_once() -> None:
    count = 0

    class Counting(graphc.nn.Module):
        def forward(self, x: Any) -> Any:
            nonlocal count
            count += 1
            return x * 1

    module = graphc.nn.Linear(2, 2)
    parametrize = graphc.nn.utils.parametrize
    parametrize.register_parametrization(module, "weight", Counting(), unsafe=True)
    with parametrize.cached():
        assert module.weight is module.weight and count == 1
    assert module.weight is not module.weight and count == 3


def test_functional_call() -> None:
    def call(t: Any, module: Any, x: Any, w: Any) -> Any:
        functional_call = t.nn.utils.stateless.functional_call if t is graphc else t.func.functional_call
        made = functional_call(module, {"0.weight": w}, (x,))
        return made, module(x)

    theirs, ours = pair(lambda nn: nn.Sequential(nn.Linear(3, 2), nn.Tanh()))
    compare(theirs, ours, [floats(4, 3), floats(2, 3)], call)


def test_fused_normalisation() -> None:
    theirs, ours = pair(lambda nn: nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3)))
    theirs.eval(), ours.eval()
    x = graphc.tensor(floats(2, 2, 4, 4))
    with graphc.no_grad():
        ours[1].running_mean.fill_(0.3), ours[1].running_var.fill_(2.0)
    fused = graphc.nn.utils.fuse_conv_bn_eval(ours[0], ours[1])
    np.testing.assert_allclose(fused(x).detach().numpy(), ours(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert "Fusion only for eval!" in same(
        lambda t: t.nn.utils.fuse_conv_bn_eval(t.nn.Conv2d(1, 1, 1), t.nn.BatchNorm2d(1))
    )
