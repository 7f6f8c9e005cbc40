"""An LSTM over a sequence, whose last state is classified."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.networks import parts
from benchmarks.workload import Arrays, Network, Parameter


def _jax(j: Any, w: dict[str, Any], x: Any, training: bool) -> Any:
    weight, bias = w["lstm.weight_hh_l0"].T, w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"]
    # The inputs' share of all steps at once, as the best implementations do.
    shares = j.np.swapaxes(x @ w["lstm.weight_ih_l0"].T + bias, 0, 1)

    def step(state: Any, share: Any) -> Any:
        h, c = state
        i, f, g, o = j.np.split(share + h @ weight, 4, axis=-1)
        c = j.nn.sigmoid(f) * c + j.nn.sigmoid(i) * j.np.tanh(g)
        h = j.nn.sigmoid(o) * j.np.tanh(c)
        return (h, c), None

    zero = j.np.zeros((x.shape[0], weight.shape[0]), x.dtype)
    (h, _), _ = j.lax.scan(step, (zero, zero), shares)
    return parts.jax_linear(w, "head", h), {}


def _tinygrad(tg: Any, w: dict[str, Any], x: Any) -> Any:
    weight, bias = w["lstm.weight_hh_l0"].transpose(), w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"]
    shares = x @ w["lstm.weight_ih_l0"].transpose() + bias
    h = c = tg.Tensor.zeros(x.shape[0], weight.shape[0])
    for t in range(x.shape[1]):
        i, f, g, o = (shares[:, t] + h @ weight).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = (o.sigmoid() * c.tanh()).contiguous()
    return parts.tinygrad_linear(w, "head", h)


def lstm(inputs: int = 128, hidden: int = 256, steps: int = 50) -> Network:
    """The network: one layer, ten classes."""

    def module(lib: Any) -> Any:
        nn = lib.nn

        class Classifier(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
                self.head = nn.Linear(hidden, 10)

            def forward(self, x: Any) -> Any:
                _, (h, _) = self.lstm(x)
                return self.head(h[0])

        return Classifier()

    def samples(rng: np.random.Generator, batch: int) -> Arrays:
        return {"x": rng.standard_normal((batch, steps, inputs), np.float32), "y": rng.integers(0, 10, batch)}

    bound = hidden**-0.5
    return Network(
        name="lstm",
        parameters={
            "lstm.weight_ih_l0": Parameter((4 * hidden, inputs), bound),
            "lstm.weight_hh_l0": Parameter((4 * hidden, hidden), bound),
            "lstm.bias_ih_l0": Parameter((4 * hidden,), bound),
            "lstm.bias_hh_l0": Parameter((4 * hidden,), bound),
            **parts.linear("head", hidden, 10),
        },
        module=module,
        jax=_jax,
        tinygrad=_tinygrad,
        samples=samples,
        forward_flops=lambda batch: 2.0 * batch * (steps * 4 * hidden * (inputs + hidden) + hidden * 10),
        first_flops=lambda batch: 2.0 * batch * steps * 4 * hidden * inputs,
    )
