"""Distributions side by side with PyTorch's: what is computed from parameters and values, with gradients, what draws
look like, and what is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

Make = Callable[..., Any]
RNG = np.random.default_rng(3)
REAL, POSITIVE = RNG.standard_normal((2, 3)), RNG.random((2, 3)) + 0.3
CHANCES = np.array([0.1, 0.5, 0.9])
FACTOR = np.tril(RNG.standard_normal((3, 3)), -1) + np.diag([0.5, 1.0, 2.0])
VECTOR = RNG.standard_normal(3)

# How each is made of a library's distributions and parameters, the parameters, and values to look at.
CASES: dict[str, tuple[Make, tuple[Any, ...], Any]] = {
    "Normal": (lambda d, a, b: d.Normal(a, b), (REAL, POSITIVE), RNG.standard_normal((4, 2, 3))),
    "Normal broadcast": (lambda d, a, b: d.Normal(a, b), (REAL, POSITIVE[0]), RNG.standard_normal((2, 3))),
    "Normal number": (lambda d, a: d.Normal(a, 2), (REAL,), RNG.standard_normal((2, 3))),
    "LogNormal": (lambda d, a, b: d.LogNormal(a, b), (REAL, POSITIVE), POSITIVE * 2),
    "Laplace": (lambda d, a, b: d.Laplace(a, b), (REAL, POSITIVE), RNG.standard_normal((2, 3))),
    "Cauchy": (lambda d, a, b: d.Cauchy(a, b), (REAL, POSITIVE), RNG.standard_normal((2, 3))),
    "Gumbel": (lambda d, a, b: d.Gumbel(a, b), (REAL, POSITIVE), RNG.standard_normal((2, 3))),
    "HalfNormal": (lambda d, a: d.HalfNormal(a), (POSITIVE,), POSITIVE * 2),
    "Exponential": (lambda d, a: d.Exponential(a), (POSITIVE,), POSITIVE * 2),
    "Uniform": (lambda d, a, b: d.Uniform(a, a + b), (REAL, POSITIVE), REAL + POSITIVE * 0.7),
    "Uniform outside": (
        lambda d, a, b: d.Uniform(a, a + b, validate_args=False),
        (REAL, POSITIVE),
        REAL + POSITIVE * np.array([-1.0, 0.0, 1.0]),
    ),
    "Bernoulli": (lambda d, p: d.Bernoulli(p), (CHANCES,), np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])),
    "Bernoulli logits": (lambda d, p: d.Bernoulli(logits=p), (REAL,), np.array([0.0, 1.0, 1.0])),
    "Geometric": (lambda d, p: d.Geometric(p), (CHANCES,), np.array([0.0, 1.0, 5.0])),
    "Geometric logits": (lambda d, p: d.Geometric(logits=p), (REAL,), np.array([0.0, 1.0, 5.0])),
    "Poisson": (lambda d, r: d.Poisson(r), (POSITIVE * 4,), np.array([0.0, 1.0, 5.0])),
    "Categorical": (lambda d, p: d.Categorical(p), (POSITIVE,), np.array([[0, 2], [1, 1], [2, 0]])),
    "Categorical logits": (lambda d, p: d.Categorical(logits=p), (REAL,), np.array([[0, 2], [1, 1]])),
    "Categorical one": (lambda d, p: d.Categorical(p), (POSITIVE[0],), np.array([[0, 2], [1, 1]])),
    "OneHotCategorical": (lambda d, p: d.OneHotCategorical(p), (POSITIVE,), np.eye(3)[:2]),
    "OneHotCategorical logits": (lambda d, p: d.OneHotCategorical(logits=p), (REAL,), np.eye(3)[1:]),
    "Independent": (lambda d, a, b: d.Independent(d.Normal(a, b), 1), (REAL, POSITIVE), RNG.standard_normal((4, 2, 3))),
    "Independent 2": (lambda d, p: d.Independent(d.Bernoulli(logits=p), 2), (REAL,), np.eye(3)[:2]),
    "MultivariateNormal": (
        lambda d, a, m: d.MultivariateNormal(a, scale_tril=m),
        (REAL, FACTOR),
        RNG.standard_normal((4, 2, 3)),
    ),
    "MultivariateNormal covariance": (
        lambda d, a, m: d.MultivariateNormal(a, m @ m.mT),
        (VECTOR, FACTOR),
        RNG.standard_normal((2, 3)),
    ),
    "MultivariateNormal precision": (
        lambda d, a, m: d.MultivariateNormal(a, precision_matrix=m @ m.mT),
        (VECTOR, FACTOR),
        RNG.standard_normal((2, 3)),
    ),
    "MixtureSameFamily": (
        lambda d, p, a, b: d.MixtureSameFamily(d.Categorical(p), d.Normal(a, b)),
        (POSITIVE, REAL, POSITIVE),
        RNG.standard_normal((4, 2)),
    ),
    "MixtureSameFamily of vectors": (
        lambda d, p, a, b: d.MixtureSameFamily(d.Categorical(logits=p), d.Independent(d.Normal(a, b), 1)),
        (VECTOR[:2], REAL, POSITIVE),
        RNG.standard_normal((4, 3)),
    ),
}
FACTS = ("mean", "mode", "variance", "stddev")


def parameters(library: Any, arrays: tuple[Any, ...], dtype: str = "float64") -> list[Any]:
    return [library.tensor(a, dtype=getattr(library, dtype), requires_grad=True) for a in arrays]


def tensor(library: Any, value: Any, dtype: str = "float64") -> Any:
    return library.tensor(value) if value.dtype.kind == "i" else library.tensor(value, dtype=getattr(library, dtype))


def close(ours: Any, theirs: Any, rtol: float = 1e-8) -> None:
    assert str(ours.dtype).rpartition(".")[2] == str(theirs.dtype).rpartition(".")[2]
    assert tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol, rtol)


def outcome(compute: Callable[[], Any]) -> Any:
    """What is computed, or that it is not there."""
    try:
        return compute()
    except NotImplementedError:
        return NotImplementedError


def both(name: str, compute: Callable[[Any, Any, Any], Any], dtype: str = "float64", rtol: float = 1e-8) -> None:
    """`compute(library, distribution, value)` of both libraries, with first and second gradients of its sum."""
    make, arrays, values = CASES[name]
    found: list[list[Any]] = []
    for library in (graphc, torch):
        given = parameters(library, arrays, dtype)
        value = tensor(library, values, dtype)
        if value.dtype.is_floating_point:
            value.requires_grad_()
        result = outcome(lambda: compute(library, make(library.distributions, *given), value))  # noqa: B023
        if result is NotImplementedError:
            found.append([NotImplementedError])
            continue
        found.append([result])
        if result.requires_grad and dtype == "float64":
            leaves = [*given, *([value] if value.requires_grad else [])]
            finite = library.where(library.isfinite(result), result, 0.0)
            first = library.autograd.grad(finite.square().sum(), leaves, create_graph=True, allow_unused=True)
            first = [library.zeros_like(x) if g is None else g for g, x in zip(first, leaves, strict=True)]
            found[-1] += first
            total = sum(g.square().sum() for g in first)
            if total.requires_grad:
                second = library.autograd.grad(total, leaves, allow_unused=True)
                found[-1] += [library.zeros_like(x) if g is None else g for g, x in zip(second, leaves, strict=True)]
    ours, theirs = found
    if theirs == [NotImplementedError]:
        assert ours == theirs or name.startswith("MixtureSameFamily")
        return
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        close(mine, other, rtol)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["log_prob", "cdf"])
def test_functions_of_values_are_pytorch_s(name: str, method: str) -> None:
    if method == "cdf" and name.startswith(("Independent", "MixtureSameFamily of")):
        pytest.skip("there is none")
    both(name, lambda library, d, value: getattr(d, method)(value))
    both(name, lambda library, d, value: getattr(d, method)(value), "float32", 2e-5)


@pytest.mark.parametrize("name", CASES)
def test_facts_are_pytorch_s(name: str) -> None:
    for fact in FACTS:
        both(name, lambda library, d, value: getattr(d, fact))  # noqa: B023
    both(name, lambda library, d, value: d.entropy())
    both(name, lambda library, d, value: d.perplexity())
    both(name, lambda library, d, value: d.enumerate_support())
    both(name, lambda library, d, value: d.enumerate_support(expand=False))


@pytest.mark.parametrize("name", CASES)
def test_expanded_ones_are_pytorch_s(name: str) -> None:
    make, arrays, _ = CASES[name]
    shapes = []
    for library in (graphc, torch):
        made = make(library.distributions, *parameters(library, arrays))
        wide = made.expand((5, *made.batch_shape))
        shapes.append([tuple(s) for s in (made.batch_shape, made.event_shape, wide.batch_shape, wide.sample().shape)])
        assert (repr(wide) == repr(wide)) and wide.has_rsample == made.has_rsample
    assert shapes[0] == shapes[1]
    both(name, lambda library, d, value: d.expand((5, *d.batch_shape)).mean)


QUANTILES = ("Normal", "LogNormal", "Laplace", "Cauchy", "Gumbel", "HalfNormal", "Exponential", "Uniform")


@pytest.mark.parametrize("name", QUANTILES)
def test_quantiles_are_pytorch_s(name: str) -> None:
    at = np.array([0.2, 0.5, 0.9])
    both(name, lambda library, d, value: d.icdf(library.tensor(at)))


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_distribution_s_moments(name: str) -> None:
    make, arrays, _ = CASES[name]
    given = parameters(graphc, arrays)
    graphc.manual_seed(0)
    made = make(graphc.distributions, *given)
    drawn = made.sample((4000,))
    assert tuple(drawn.shape) == (4000, *made.batch_shape, *made.event_shape) and not drawn.requires_grad
    theirs = make(torch.distributions, *parameters(torch, arrays)).sample((2,))
    assert str(drawn.dtype).rpartition(".")[2] == str(theirs.dtype).rpartition(".")[2]
    assert tuple(made.sample((2, 3)).shape) == (2, 3, *made.batch_shape, *made.event_shape)
    assert tuple(made.sample().shape) == (*made.batch_shape, *made.event_shape)
    if name.startswith("Categorical"):
        shares = graphc.stack([(drawn == i).to(graphc.float64).mean(0) for i in range(3)], -1)
        np.testing.assert_allclose(shares.numpy(), made.probs.detach().numpy(), atol=0.05)
    elif name != "Cauchy":
        spread = made.stddev.detach().numpy()
        np.testing.assert_array_less(np.abs(drawn.mean(0).numpy() - made.mean.detach().numpy()), 0.1 * spread + 1e-9)
        if name not in ("LogNormal",):
            np.testing.assert_allclose(drawn.std(0).numpy(), spread, rtol=0.2)


@pytest.mark.parametrize("name", CASES)
def test_gradients_flow_through_draws_where_pytorch_lets_them(name: str) -> None:
    make, arrays, _ = CASES[name]
    given = parameters(graphc, arrays)
    made = make(graphc.distributions, *given)
    theirs = make(torch.distributions, *parameters(torch, arrays))
    assert made.has_rsample == theirs.has_rsample
    if not made.has_rsample:
        with pytest.raises(NotImplementedError):
            made.rsample()
        return
    made.rsample((7,)).sum().backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in given)


def test_one_mixture_serves_a_batch_of_components() -> None:
    d = graphc.distributions
    made = d.MixtureSameFamily(d.Categorical(graphc.ones(3)), d.Normal(graphc.tensor(REAL), 0.01))
    drawn = made.sample((50,))
    assert tuple(drawn.shape) == (50, 2)
    apart = (drawn.unsqueeze(-1) - graphc.tensor(REAL)).abs().amin(-1)
    assert apart.max().item() < 0.1


def test_the_gradient_of_a_draw_is_that_of_its_formula() -> None:
    loc, scale = graphc.zeros(3, requires_grad=True), graphc.ones(3, requires_grad=True)
    drawn = graphc.distributions.Normal(loc, scale).rsample()
    drawn.sum().backward()
    assert loc.grad.tolist() == [1.0, 1.0, 1.0]  # type: ignore[union-attr]
    np.testing.assert_allclose(scale.grad.numpy(), drawn.detach().numpy())  # type: ignore[union-attr]


PAIRS: dict[str, tuple[str, str]] = {
    **{name: (name, name) for name in ("Normal", "LogNormal", "Laplace", "HalfNormal", "Exponential", "Gumbel")},
    **{name: (name, name) for name in ("Cauchy", "Uniform", "Bernoulli", "Geometric", "Poisson", "Categorical")},
    **{name: (name, name) for name in ("OneHotCategorical", "Independent", "MultivariateNormal")},
    "Uniform, Normal": ("Uniform", "Normal"),
    "Exponential, Normal": ("Exponential", "Normal"),
    "Laplace, Normal": ("Laplace", "Normal"),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_divergences_are_pytorch_s(pair: str) -> None:
    first, second = (CASES[name] for name in PAIRS[pair])
    found = []
    for library in (graphc, torch):
        of_p = parameters(library, first[1])
        # q's parameters are others, still inside of what they may be
        of_q = parameters(library, tuple(a * 0.9 + 0.05 * (a != 0) for a in second[1]))
        p, q = first[0](library.distributions, *of_p), second[0](library.distributions, *of_q)
        made = library.distributions.kl_divergence(p, q)
        finite = library.where(library.isfinite(made), made, 0.0)
        grads = library.autograd.grad(finite.sum(), [*of_p, *of_q], allow_unused=True)
        found.append([made, *[library.zeros(1) if g is None else g for g in grads]])
    for mine, other in zip(*found, strict=True):
        close(mine, other, 1e-7)


def test_divergences_at_the_edges_are_pytorch_s() -> None:
    def edge(library: Any) -> Any:
        d = library.distributions
        p, q = (d.Bernoulli(library.tensor(chances)) for chances in ([0.0, 1.0, 0.0, 0.3], [0.3, 0.3, 0.0, 1.0]))
        return d.kl_divergence(p, q)

    close(edge(graphc), edge(torch), 1e-6)


def test_a_divergence_without_a_formula_is_refused_and_one_can_be_registered() -> None:
    d = graphc.distributions

    class Own(d.Normal):
        pass

    p, q = Own(0.0, 1.0), d.Bernoulli(0.5)
    with pytest.raises(NotImplementedError, match="p type Own and q type Bernoulli"):
        d.kl_divergence(p, q)
    assert d.kl_divergence(p, d.Normal(0.0, 1.0)).item() == 0

    @d.register_kl(Own, d.Normal)
    def special(p: Any, q: Any) -> Any:
        return p.loc + 7

    try:
        assert d.kl_divergence(p, q=d.Normal(0.0, 1.0)).item() == 7
        assert d.kl_divergence(d.Normal(0.0, 1.0), d.Normal(0.0, 1.0)).item() == 0
    finally:
        del d.kl._FORMULAS[Own, d.Normal]


BAD: dict[str, Callable[[Any, Any], Any]] = {
    "negative scale": lambda t, d: d.Normal(t.zeros(2), t.tensor([1.0, -1.0])).loc + d.Normal(0.0, -1.0).scale,
    "NaN": lambda t, d: d.Normal(0.0, 1.0).log_prob(t.tensor(math.nan)),
    "number": lambda t, d: d.Normal(0.0, 1.0).log_prob(3.0),
    "shapes": lambda t, d: d.Normal(t.zeros(2), 1.0).log_prob(t.zeros(3)),
    "low above high": lambda t, d: d.Uniform(1.0, 0.0).sample(),
    "outside": lambda t, d: d.Uniform(0.0, 1.0).log_prob(t.tensor(2.0)),
    "chance": lambda t, d: d.Bernoulli(t.tensor([0.5, 1.5])).mean,
    "half a success": lambda t, d: d.Bernoulli(0.5).log_prob(t.tensor(0.5)),
    "neither": lambda t, d: d.Categorical(),
    "both": lambda t, d: d.Bernoulli(probs=0.5, logits=0.0),
    "no dimension": lambda t, d: d.Categorical(t.tensor(1.0)),
    "negative chance": lambda t, d: d.Categorical(t.tensor([2.0, -1.0])).probs,
    "class": lambda t, d: d.Categorical(t.ones(2)).log_prob(t.tensor(2)),
    "not one-hot": lambda t, d: d.OneHotCategorical(t.ones(3)).log_prob(t.ones(3)),
    "not lower": lambda t, d: d.MultivariateNormal(t.zeros(2), scale_tril=t.ones(2, 2)).loc,
    "not definite": lambda t, d: d.MultivariateNormal(t.zeros(2), -t.eye(2)).loc,
    "no matrix": lambda t, d: d.MultivariateNormal(t.zeros(2)),
    "dimensions": lambda t, d: d.Independent(d.Normal(t.zeros(2, 3), 1.0), 3),
    "negative value": lambda t, d: d.Exponential(2.0).log_prob(t.tensor(-1.0)),
    "no success": lambda t, d: d.Geometric(0.0).mean,
    "fraction": lambda t, d: d.Poisson(2.0).log_prob(t.tensor(1.5)),
}


@pytest.mark.parametrize("what", BAD)
def test_what_pytorch_refuses_is_refused(what: str) -> None:
    for library in (torch, graphc):
        with pytest.raises(ValueError):
            BAD[what](library, library.distributions).tolist()
            graphc.zeros(1).tolist()


def test_the_message_names_the_parameter_the_constraint_and_the_line() -> None:
    made = graphc.distributions.Normal(graphc.zeros(2), graphc.tensor([1.0, -1.0]))
    with pytest.raises(
        ValueError,
        match=r"parameter scale \(Tensor of shape \(2,\)\) of distribution Normal to satisfy the constraint "
        r"GreaterThan\(lower_bound=0\.0\)[^\n]*\n  at .*test_distributions\.py:\d+$",
    ):
        made.loc.tolist(), (made.loc + 1).tolist()


def test_nothing_is_checked_when_that_is_not_wanted() -> None:
    d = graphc.distributions
    assert math.isnan(d.Normal(0.0, -1.0, validate_args=False).log_prob(graphc.tensor(0.0)).item())


@pytest.mark.parametrize("name", ["Normal", "Categorical logits", "Bernoulli logits", "Independent"])
def test_a_compiled_function_gives_what_a_plain_one_gives(name: str) -> None:
    make, arrays, values = CASES[name]
    value = tensor(graphc, values)

    def score(*given: Any) -> Any:
        made = make(graphc.distributions, *given)
        return made.log_prob(value).sum() + made.entropy().sum()

    compiled = graphc.compile(score)
    for scale in (1.0, 0.5, 0.25):
        given = parameters(graphc, tuple(a * scale for a in arrays))
        assert compiled(*given).item() == pytest.approx(score(*given).item(), rel=1e-12)
        grads = [graphc.autograd.grad(f(*given), given) for f in (compiled, score)]
        for mine, plain in zip(*grads, strict=True):
            np.testing.assert_allclose(mine.numpy(), plain.numpy(), 1e-12, 1e-12)


def test_a_policy_is_learnt() -> None:
    """REINFORCE on three arms, of which the last is the best."""
    graphc.manual_seed(1)
    logits = graphc.zeros(3, requires_grad=True)
    optimizer, reward = graphc.optim.Adam([logits], lr=0.1), graphc.tensor([0.0, 0.2, 1.0])
    for _ in range(60):
        policy = graphc.distributions.Categorical(logits=logits)
        action = policy.sample((16,))
        optimizer.zero_grad()
        (-(policy.log_prob(action) * (reward[action] - 0.4)).mean()).backward()
        optimizer.step()
    assert graphc.softmax(logits, -1)[2].item() > 0.9
