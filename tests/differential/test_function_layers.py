"""Layers over `nn.functional` against PyTorch: printing, state dictionaries, training and evaluation, gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn
from tests.differential.compare import floats, message, to, torch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

Make = Callable[[Any], Any]


def state_of(library: Any, theirs: Any) -> dict[str, Any]:
    return {name: to(library, value.detach().numpy().copy()) for name, value in theirs.state_dict().items()}


def compare(make: Make, *arrays: np.ndarray, modes: tuple[bool, ...] = (True, False), values: bool = True) -> None:
    """Both layers print, hold and compute the same, in each mode, with gradients of floats and parameters."""
    theirs, ours = make(torch.nn), make(graphc.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(dict(ours.named_parameters())) == list(dict(theirs.named_parameters()))
    ours.load_state_dict(state_of(graphc, theirs))
    for mode in modes:
        results = []
        for library, layer in ((torch, theirs), (graphc, ours)):
            layer.train(mode)
            inputs = [to(library, a, a.dtype.kind == "f" and i == 0) for i, a in enumerate(arrays)]
            out = layer(*inputs)
            found = [out.detach().numpy()]
            if out.requires_grad:
                (out * to(library, floats(*out.shape, seed=9))).sum().backward()
                found += [t.grad.numpy() for t in inputs if t.grad is not None]
                found += [p.grad.numpy().copy() for p in layer.parameters() if p.grad is not None]
            found += [np.asarray(v.numpy()) for v in layer.state_dict().values()]
            results.append(found)
        wanted, got = results
        assert [a.shape for a in got] == [a.shape for a in wanted]
        for mine, other in zip(got, wanted, strict=True):
            if values:
                np.testing.assert_allclose(mine, other, rtol=2e-4, atol=2e-5)


ACTIVATIONS: dict[str, Make] = {
    "ReLU": lambda nn: nn.ReLU(),
    "ReLU6": lambda nn: nn.ReLU6(),
    "LeakyReLU": lambda nn: nn.LeakyReLU(0.2),
    "PReLU": lambda nn: nn.PReLU(),
    "PReLU by channel": lambda nn: nn.PReLU(4, init=0.1),
    "ELU": lambda nn: nn.ELU(0.5),
    "CELU": lambda nn: nn.CELU(0.5),
    "SELU": lambda nn: nn.SELU(),
    "GELU": lambda nn: nn.GELU(approximate="tanh"),
    "SiLU": lambda nn: nn.SiLU(),
    "Mish": lambda nn: nn.Mish(),
    "GLU": lambda nn: nn.GLU(1),
    "Hardtanh": lambda nn: nn.Hardtanh(-0.5, 0.7),
    "Hardsigmoid": lambda nn: nn.Hardsigmoid(),
    "Hardswish": lambda nn: nn.Hardswish(),
    "Hardshrink": lambda nn: nn.Hardshrink(0.3),
    "Softshrink": lambda nn: nn.Softshrink(0.3),
    "Tanhshrink": lambda nn: nn.Tanhshrink(),
    "Softsign": lambda nn: nn.Softsign(),
    "Softplus": lambda nn: nn.Softplus(2, 10),
    "LogSigmoid": lambda nn: nn.LogSigmoid(),
    "Threshold": lambda nn: nn.Threshold(0.1, 20),
    "Softmax": lambda nn: nn.Softmax(dim=1),
    "Softmin": lambda nn: nn.Softmin(dim=-1),
    "LogSoftmax": lambda nn: nn.LogSoftmax(dim=0),
    "Sigmoid": lambda nn: nn.Sigmoid(),
    "Tanh": lambda nn: nn.Tanh(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    compare(ACTIVATIONS[name], floats(3, 4), modes=(True,))


INPLACE: dict[str, tuple[Any, ...]] = {
    "ReLU": (), "ReLU6": (), "LeakyReLU": (0.3,), "RReLU": (0.1, 0.2), "ELU": (0.5,), "CELU": (0.5,), "SELU": (),
    "SiLU": (), "Mish": (), "Hardtanh": (-0.3, 0.2), "Hardsigmoid": (), "Hardswish": (), "Threshold": (0.1, 3.0),
    "Dropout": (0.3,), "Dropout1d": (), "Dropout2d": (), "Dropout3d": (), "AlphaDropout": (), "FeatureAlphaDropout": (),
}  # fmt: skip


@pytest.mark.parametrize("name", INPLACE)
def test_in_place_layers(name: str) -> None:
    theirs, ours = (getattr(nn, name)(*INPLACE[name], inplace=True).eval() for nn in (torch.nn, graphc.nn))
    assert repr(ours) == repr(theirs)
    array = (
        floats(3, 4, 2, 2) if name == "Dropout2d" else floats(2, 3, 4, 2, 2) if name == "Dropout3d" else floats(3, 4)
    )
    x, y = to(graphc, array), to(torch, array)
    made, wanted = ours(x), theirs(y)
    if name != "Dropout1d":
        assert made is x
    np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_softmax2d() -> None:
    compare(lambda nn: nn.Softmax2d(), floats(2, 3, 4, 5), modes=(True,))
    compare(lambda nn: nn.Softmax2d(), floats(3, 4, 5), modes=(True,))


@pytest.mark.parametrize("name", ["Dropout", "Dropout1d", "AlphaDropout", "FeatureAlphaDropout", "RReLU"])
def test_random_layers(name: str) -> None:
    compare(lambda nn: getattr(nn, name)(), floats(3, 4, 5), modes=(False,))
    compare(lambda nn: getattr(nn, name)(), floats(3, 4, 5), modes=(True,), values=False)


UNIT = 1 / (1 + np.exp(-floats(6, 4, seed=2)))
SIGNS = np.where(floats(6, 4, seed=3) > 0, 1.0, -1.0).astype(np.float32)
LABELS = np.array([0, 3, 1, 1, 2, 0])
X, Y, Z = floats(6, 4), floats(6, 4, seed=1), floats(6, 4, seed=5)
WEIGHT = np.array([0.5, 1.0, 2.0, 1.5], np.float32)
POSITIVE = np.abs(Y) + 0.1

LOSSES: dict[str, tuple[Callable[[Any, Any], Any], tuple[np.ndarray, ...]]] = {
    "L1Loss": (lambda nn, w: nn.L1Loss(reduction="none"), (X, Y)),
    "MSELoss": (lambda nn, w: nn.MSELoss(), (X, Y)),
    "SmoothL1Loss": (lambda nn, w: nn.SmoothL1Loss(beta=0.5), (X, Y)),
    "HuberLoss": (lambda nn, w: nn.HuberLoss("sum", 0.5), (X, Y)),
    "KLDivLoss": (lambda nn, w: nn.KLDivLoss(reduction="batchmean", log_target=True), (X, Y)),
    "PoissonNLLLoss": (lambda nn, w: nn.PoissonNLLLoss(full=True), (X, POSITIVE)),
    "GaussianNLLLoss": (lambda nn, w: nn.GaussianNLLLoss(full=True), (X, Y, POSITIVE)),
    "BCELoss": (lambda nn, w: nn.BCELoss(w), (UNIT, UNIT[::-1].copy())),
    "BCEWithLogitsLoss": (lambda nn, w: nn.BCEWithLogitsLoss(pos_weight=w), (X, UNIT)),
    "HingeEmbeddingLoss": (lambda nn, w: nn.HingeEmbeddingLoss(0.7), (X, SIGNS)),
    "MultiLabelMarginLoss": (lambda nn, w: nn.MultiLabelMarginLoss(), (X, np.array([[1, 3, -1, 0]] * 6))),
    "SoftMarginLoss": (lambda nn, w: nn.SoftMarginLoss(), (X, SIGNS)),
    "CrossEntropyLoss": (lambda nn, w: nn.CrossEntropyLoss(w, label_smoothing=0.1), (X, LABELS)),
    "NLLLoss": (lambda nn, w: nn.NLLLoss(w, ignore_index=1), (X, LABELS)),
    "MultiLabelSoftMarginLoss": (lambda nn, w: nn.MultiLabelSoftMarginLoss(w), (X, UNIT)),
    "CosineEmbeddingLoss": (lambda nn, w: nn.CosineEmbeddingLoss(0.1), (X, Y, SIGNS[:, 0].copy())),
    "MarginRankingLoss": (lambda nn, w: nn.MarginRankingLoss(0.1), (X, Y, SIGNS)),
    "MultiMarginLoss": (lambda nn, w: nn.MultiMarginLoss(2, 0.5, w), (X, LABELS)),
    "TripletMarginLoss": (lambda nn, w: nn.TripletMarginLoss(0.5, swap=True), (X, Y, Z)),
    "TripletMarginWithDistanceLoss": (lambda nn, w: nn.TripletMarginWithDistanceLoss(margin=2.0), (X, Y, Z)),
    "CTCLoss": (lambda nn, w: nn.CTCLoss(1), (Z[:, None], np.array([[3, 2]]), np.array([6]), np.array([2]))),
    "CosineSimilarity": (lambda nn, w: nn.CosineSimilarity(), (X, Y)),
    "PairwiseDistance": (lambda nn, w: nn.PairwiseDistance(3.0, keepdim=True), (X, Y)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    make, arrays = LOSSES[name]
    compare(lambda nn: make(nn, to(torch if nn is torch.nn else graphc, WEIGHT)), *arrays, modes=(True,))


def test_older_arguments_of_losses_warn_as_in_pytorch() -> None:
    for options, name in (
        ({"size_average": False}, "sum"),
        ({"reduce": False}, "none"),
        ({"reduce": True}, "mean"),
        ({"size_average": True, "reduce": False}, "none"),
    ):
        texts = []
        for library in (torch, graphc):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                assert library.nn.MSELoss(**options).reduction == name
                library.nn.functional.cross_entropy(to(library, X), to(library, LABELS), **options)
            texts.append([str(w.message) for w in seen])
        assert texts[0] == texts[1] and len(texts[1]) == 2


def test_broadcast_losses_warn_as_in_pytorch() -> None:
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        texts = []
        for library in (torch, graphc):
            with pytest.warns(UserWarning) as seen:
                getattr(library.nn.functional, name)(to(library, X), to(library, X[0]))
            texts.append(str(seen[0].message))
        assert texts[0] == texts[1]


def test_refusals_of_layers() -> None:
    for make, error in (
        (lambda nn: nn.Dropout2d(1.5), ValueError),
        (lambda nn: nn.Hardtanh(2, 1), AssertionError),
        (lambda nn: nn.MultiMarginLoss(p=3), ValueError),
        (lambda nn: nn.TripletMarginLoss(margin=-1.0), ValueError),
        (lambda nn: nn.Softmax2d()(to(graphc if nn is graphc.nn else torch, X)), ValueError),
    ):
        texts = []
        for nn in (torch.nn, graphc.nn):
            with pytest.raises(error) as raised:
                make(nn)
            texts.append(message(raised.value))
        assert texts[0] == texts[1]


NORMS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "BatchNorm1d": (lambda nn: nn.BatchNorm1d(4), (6, 4)),
    "BatchNorm1d of lengths": (lambda nn: nn.BatchNorm1d(4, momentum=0.3, affine=False), (6, 4, 3)),
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(3, momentum=None), (2, 3, 4, 2)),
    "BatchNorm3d": (lambda nn: nn.BatchNorm3d(3, bias=False), (2, 3, 2, 2, 2)),
    "BatchNorm3d alone": (lambda nn: nn.BatchNorm3d(3, track_running_stats=False), (2, 3, 2, 2, 2)),
    "InstanceNorm1d": (lambda nn: nn.InstanceNorm1d(3), (2, 3, 5)),
    "InstanceNorm1d of one": (lambda nn: nn.InstanceNorm1d(3, affine=True), (3, 5)),
    "InstanceNorm2d": (lambda nn: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (2, 3, 4, 2)),
    "InstanceNorm3d": (lambda nn: nn.InstanceNorm3d(3, eps=0.1), (2, 3, 2, 2, 2)),
    "LayerNorm": (lambda nn: nn.LayerNorm([4, 5]), (3, 4, 5)),
    "LayerNorm without bias": (lambda nn: nn.LayerNorm(5, bias=False), (3, 4, 5)),
    "GroupNorm": (lambda nn: nn.GroupNorm(2, 4), (3, 4, 5)),
    "GroupNorm without weight": (lambda nn: nn.GroupNorm(4, 4, affine=False), (3, 4, 5)),
    "RMSNorm": (lambda nn: nn.RMSNorm(5), (3, 4, 5)),
    "RMSNorm with eps": (lambda nn: nn.RMSNorm((4, 5), 0.1, False), (3, 4, 5)),
    "LocalResponseNorm": (lambda nn: nn.LocalResponseNorm(3, alpha=0.5), (2, 5, 3)),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalisation(name: str) -> None:
    make, shape = NORMS[name]
    compare(make, floats(*shape), modes=(True, True, False))


def test_running_statistics_are_forgotten() -> None:
    layer = graphc.nn.BatchNorm1d(3)
    layer(to(graphc, floats(5, 3)))
    assert int(layer.num_batches_tracked) == 1
    layer.reset_running_stats()
    assert int(layer.num_batches_tracked) == 0 and layer.running_mean.tolist() == [0.0] * 3
    assert layer.running_var.tolist() == [1.0] * 3


INDEX = np.array([[0, 3, 3], [1, 0, 4]])
FLAT, STARTS = np.array([1, 2, 4, 4, 0, 2]), np.array([0, 2, 2, 5])

TABLES: dict[str, tuple[Make, tuple[np.ndarray, ...]]] = {
    "Embedding": (lambda nn: nn.Embedding(5, 3), (INDEX,)),
    "Embedding with padding": (lambda nn: nn.Embedding(5, 3, padding_idx=-2, scale_grad_by_freq=True), (INDEX,)),
    "Embedding with norms": (lambda nn: nn.Embedding(5, 3, max_norm=0.7, norm_type=1.0), (INDEX,)),
    "EmbeddingBag": (lambda nn: nn.EmbeddingBag(5, 3), (FLAT, STARTS)),
    "EmbeddingBag of rows": (lambda nn: nn.EmbeddingBag(5, 3, mode="max", padding_idx=3), (INDEX,)),
    "EmbeddingBag with norms": (lambda nn: nn.EmbeddingBag(5, 3, 0.5, mode="sum"), (FLAT, STARTS)),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str) -> None:
    make, arrays = TABLES[name]
    compare(make, *arrays, modes=(True,))


def test_pretrained_tables() -> None:
    for name in ("Embedding", "EmbeddingBag"):
        for freeze in (True, False):
            made = [
                getattr(library.nn, name).from_pretrained(to(library, floats(4, 3)), freeze, padding_idx=1)
                for library in (torch, graphc)
            ]
            assert repr(made[0]) == repr(made[1])
            assert made[0].weight.requires_grad == made[1].weight.requires_grad
            np.testing.assert_array_equal(made[0].weight.detach().numpy(), made[1].weight.detach().numpy())


def test_refusals_of_norms_and_tables() -> None:
    for make, error in (
        (lambda nn, x: nn.BatchNorm3d(2)(x), ValueError),
        (lambda nn, x: nn.BatchNorm1d(3)(x), RuntimeError),
        (lambda nn, x: nn.BatchNorm1d(4)(x[:1]), ValueError),
        (lambda nn, x: nn.InstanceNorm1d(3, affine=True)(x[None]), ValueError),
        (lambda nn, x: nn.GroupNorm(2, 5), ValueError),
    ):
        texts = []
        for library in (torch, graphc):
            with pytest.raises(error) as raised:
                make(library.nn, to(library, X))
            texts.append(message(raised.value))
        assert texts[0] == texts[1]
    for nn in (torch.nn, graphc.nn):
        with pytest.raises(AssertionError, match="Padding_idx must be within num_embeddings"):
            nn.Embedding(3, 2, padding_idx=3)
    with pytest.raises(NotImplementedError, match="SyncBatchNorm: there is no training over several processes"):
        graphc.nn.SyncBatchNorm(3)
    with pytest.raises(NotImplementedError, match="embedding: sparse=True"):
        graphc.nn.Embedding(3, 2, sparse=True)(to(graphc, np.array([1])))


def test_attention_looks_for_the_largest_score_once() -> None:
    q = graphc.ones(2, 8, 4)
    attention = graphc.nn.functional.scaled_dot_product_attention
    graph = graphc.trace(lambda q: attention(q, q, q, is_causal=True), q)
    assert sum(node.op == "reduce_max" for node in graph.nodes) == 1
    places = [node.type.dtype.name for node in graph.nodes if node.op == "iota"]
    assert places == ["i32", "i32"]


def test_attention_drops_weights() -> None:
    graphc.manual_seed(0)
    q, v = graphc.zeros(2, 8, 4), graphc.ones(2, 8, 1)
    made = graphc.nn.functional.scaled_dot_product_attention(q, q, v, dropout_p=0.5).numpy()
    assert len(np.unique(np.round(made, 4))) > 2 and set(np.unique(np.round(made * 4, 3) % 1)) == {0.0}
