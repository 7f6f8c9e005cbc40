"""Layers and helpers of nn that few use, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import UnsupportedError
from tests.differential.compare import floats, to
from tests.differential.modules import compare, pair
from tests.differential.modules import same as same_with_warnings
from tests.differential.side_by_side import Say, attempt, same


@pytest.mark.parametrize("settings", [{}, {"div_value": 2.0, "head_bias": True}])
@pytest.mark.parametrize("classes", [[0, 5, 2, 9, 4], [1, 0, 2], [7]])
def test_adaptive_softmax(settings: dict[str, Any], classes: list[int]) -> None:
    theirs, ours = pair(lambda nn: nn.AdaptiveLogSoftmaxWithLoss(20, 10, [3, 6], **settings))
    x = floats(len(classes), 20)
    compare(theirs, ours, [x, np.array(classes)], lambda t, m, x, y: tuple(m(x, y)))
    compare(theirs, ours, [x], lambda t, m, x: m.log_prob(x))
    compare(theirs, ours, [x * 5], lambda t, m, x: m.predict(x))
    compare(theirs, ours, [x[0], np.array(classes[0])], lambda t, m, x, y: tuple(m(x, y)))


def test_adaptive_softmax_errors() -> None:
    def program(t: Any, say: Say) -> None:
        make = t.nn.AdaptiveLogSoftmaxWithLoss
        for cutoffs in ([], [3, 2], [0], [10], [2, 2], [1.5]):
            attempt(say, lambda cutoffs=cutoffs: make(4, 10, cutoffs))
        layer = make(4, 6, [2])
        for x, y in ((t.ones(2, 4), t.tensor([1])), (t.ones(4), t.tensor([1] * 4)), (t.ones(1, 4), t.tensor(1)),
                     (t.ones(1, 4), t.tensor([[1]])), (t.ones(1, 4), t.tensor([6]))):  # fmt: skip
            attempt(say, lambda x=x, y=y: layer(x, y))

    same(program)


@pytest.mark.parametrize("out", [(), (2,), (2, 3)])
def test_linear_cross_entropy(out: tuple[int, ...]) -> None:
    theirs, ours = pair(lambda nn: nn.LinearCrossEntropyLoss(4, 5, out_features=out, bias=True, label_smoothing=0.1))
    target = np.random.default_rng(0).integers(0, 5, (3, *out))
    compare(theirs, ours, [floats(3, 4), target])
    for nn in (graphc.nn,):
        with pytest.raises(RuntimeError, match="expected weight shape"):
            nn.LinearCrossEntropyLoss(4, 5, weight=graphc.ones(4))
        with pytest.raises(RuntimeError, match="label_smoothing"):
            nn.LinearCrossEntropyLoss(4, 5, label_smoothing=2.0)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_cross_map(size: int) -> None:
    theirs, ours = pair(lambda nn: nn.CrossMapLRN2d(size, alpha=0.5, beta=0.6, k=2))
    compare(theirs, ours, [floats(2, 6, 2, 3)])


def test_deprecated_and_parallel() -> None:
    def function(t: Any) -> Any:
        nn = t.nn
        box = nn.Container(a=nn.Linear(1, 2), b=nn.ReLU())
        loss = nn.NLLLoss2d(reduction="sum")
        wrapped = nn.DataParallel(nn.Linear(2, 2))
        result = [repr(box), repr(loss), repr(wrapped), list(wrapped.state_dict()), wrapped.device_ids]
        values = loss(t.zeros(1, 2, 2, 2), t.zeros(1, 2, 2, dtype=t.int64)).item()
        return result, values, list(wrapped(t.ones(3, 2)).shape)

    assert "deprecated" in same_with_warnings(function)
    with pytest.raises(UnsupportedError):
        graphc.nn.parallel.DistributedDataParallel(graphc.nn.ReLU())


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder", None])
def test_orthogonal_weights(shape: tuple[int, int], kind: str | None) -> None:
    def program(t: Any, say: Say) -> None:
        layer = t.nn.Linear(shape[1], shape[0], bias=False)
        start = to(t, np.linalg.qr(floats(*shape, seed=2) if shape[0] >= shape[1] else floats(*shape, seed=2).T)[0])
        layer.weight.data = start if shape[0] >= shape[1] else start.T.contiguous()
        t.nn.utils.parametrizations.orthogonal(layer, orthogonal_map=kind)
        say(layer, [n for n, _ in layer.named_parameters()], layer.weight.detach())
        original = layer.parametrizations.weight.original
        say(original.detach())
        layer(to(t, floats(2, shape[1]))).pow(3).sum().backward()
        if shape[0] == shape[1]:
            say(original.grad)  # of others it depends on the random completion
        with t.no_grad():
            original += to(t, floats(*shape, seed=4)) * 0.1
            if kind == "householder" or (kind is None and shape[0] != shape[1]):
                original.diagonal().fill_(-1)
        weight = layer.weight.detach()
        small = weight.mT @ weight if shape[0] >= shape[1] else weight @ weight.mT
        say((small - t.eye(min(shape))).abs().max() < 1e-5)

    same(program)


def test_orthogonal_without_trivialization() -> None:
    def program(t: Any, say: Say) -> None:
        orthogonal = t.nn.utils.parametrizations.orthogonal
        for shape in ((4, 4), (5, 3), (3, 5)):
            layer = t.nn.Linear(shape[1], shape[0], bias=False)
            layer.weight.data = to(t, floats(*shape, seed=2))
            orthogonal(layer, orthogonal_map="householder", use_trivialization=False)
            say(layer.weight.detach(), layer.parametrizations.weight.original.detach())
            layer(to(t, floats(2, shape[1]))).pow(3).sum().backward()
            say(layer.parametrizations.weight.original.grad)
            attempt(
                say,
                lambda shape=shape: (
                    orthogonal(t.nn.Linear(2, 2), orthogonal_map="cayley", use_trivialization=False) and shape
                ),
            )
        square = t.nn.Linear(2, 2)
        attempt(say, lambda: orthogonal(square, orthogonal_map="cayley", use_trivialization=False) and None)
        attempt(say, lambda: orthogonal(t.nn.Linear(2, 2), "bias") and None)
        attempt(say, lambda: orthogonal(t.nn.ReLU(), "weight") and None)
        attempt(say, lambda: orthogonal(t.nn.Linear(2, 2), orthogonal_map="other") and None)

    same(program)


def test_helpers() -> None:
    def program(t: Any, say: Say) -> None:
        utils = t.nn.utils
        layer = utils.skip_init(t.nn.Linear, 3, 2, bias=False)
        say(layer, list(layer.weight.shape))
        attempt(say, lambda: utils.skip_init(t.nn.ReLU))
        net = t.nn.Sequential(t.nn.Conv2d(1, 1, 2), t.nn.ConvTranspose3d(1, 1, 1))
        before = net[0].weight.detach().clone()
        say(utils.convert_conv2d_weight_memory_format(net, t.channels_last) is net, (net[0].weight == before).all())
        say(utils.convert_conv3d_weight_memory_format(net, t.channels_last_3d) is net)
        values = [to(t, floats(*shape, seed=s)) for s, shape in enumerate([(2, 3), (2,), (2,), (2,), (2,), (2,)])]
        weight, bias, mean, variance, scale, shift = values
        made = utils.fuse_linear_bn_weights(weight, bias, mean, variance.abs(), 1e-3, scale, shift)
        say([m.detach() for m in made], [type(m).__name__ for m in made])
        say([m.detach() for m in utils.fuse_linear_bn_weights(weight, None, mean, variance.abs(), 1e-3, scale, shift)])
        say([list(p.shape) for p in t.nn.Linear(2, 3).to_empty(device="cpu").parameters()])

    same(program)


def test_skip_init_draws_nothing() -> None:
    graphc.manual_seed(3)
    wanted = graphc.rand(2).tolist()
    graphc.manual_seed(3)
    graphc.nn.utils.skip_init(graphc.nn.Linear, 3, 2)
    assert graphc.rand(2).tolist() == wanted


def test_where_pytorch_has_the_layers() -> None:
    def program(t: Any, say: Say) -> None:
        modules = t.nn.modules
        say(modules.Linear is t.nn.Linear, modules.conv._ConvNd in t.nn.Conv2d.__mro__)
        say(modules.batchnorm._BatchNorm in t.nn.BatchNorm1d.__mro__, modules.loss._Loss in t.nn.L1Loss.__mro__)
        say(modules.utils._pair(3), modules.utils._triple([1, 2, 3]), modules.utils._reverse_repeat_tuple((1, 2), 2))
        state = t.nn.DataParallel(t.nn.Linear(1, 1)).state_dict()
        modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
        say(list(state), list(state._metadata))
        say(t.nn.Conv2d(1, 1, 3, padding="same")._reversed_padding_repeated_twice)
        say(t.nn.Conv1d(1, 1, 3, padding=2)._reversed_padding_repeated_twice)

    same(program)
