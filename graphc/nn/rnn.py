"""Recurrent layers: RNN, LSTM, GRU, and one step of each."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphc import (
    Tensor,
    empty,
    gru,
    gru_cell,
    lstm,
    lstm_cell,
    rnn_relu,
    rnn_relu_cell,
    rnn_tanh,
    rnn_tanh_cell,
    zeros,
)
from graphc.errors import InputError, KindError, RangeError, UsageError
from graphc.nn import init
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter
from graphc.nn.utils.rnn import PackedSequence, inside

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_NETWORKS: dict[str, Any] = {"LSTM": lstm, "GRU": gru, "RNN_TANH": rnn_tanh, "RNN_RELU": rnn_relu}


def _of_type(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise KindError(f"{name} should be of type {kind.__name__}, got: {type(value).__name__}")


def _draw(module: Module, hidden_size: int) -> None:
    bound = 1.0 / math.sqrt(hidden_size) if hidden_size > 0 else 0
    for weight in module.parameters():
        init.uniform_(weight, -bound, bound)


class RNNBase(Module):
    """What RNN, LSTM and GRU share: (time, batch, input_size), (batch, time, input_size) with `batch_first`, (time,
    input_size) or a `PackedSequence` give outputs of the same form and the last states.

    The parameters are named `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, `weight_hr_l0`, with `_reverse`
    for the other direction, and start as U(-b, b) with b = 1/sqrt(hidden_size).
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
            raise InputError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        _of_type("bias", bias, bool)
        _of_type("batch_first", batch_first, bool)
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
            _of_type(name, value, int)
            if value <= 0:
                raise InputError(f"{name} must be greater than zero")
        if num_layers <= 0:
            raise InputError("num_layers must be greater than zero")
        if proj_size < 0:
            raise InputError("proj_size should be a positive integer or zero to disable projections")
        if proj_size >= hidden_size:
            raise InputError("proj_size has to be smaller than hidden_size")
        if mode not in _GATES:
            raise InputError("Unrecognized RNN mode: " + mode)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._names: list[list[str]] = []
        gates = _GATES[mode] * hidden_size
        out = proj_size or hidden_size
        for layer in range(num_layers):
            for suffix in ("", "_reverse")[: 2 if bidirectional else 1]:
                width = input_size if layer == 0 else out * (2 if bidirectional else 1)
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, width), "weight_hh": (gates, out)}
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = {f"{name}_l{layer}{suffix}": shape for name, shape in shapes.items()}
                for name, shape in names.items():
                    setattr(self, name, Parameter(empty(shape, device=device, dtype=dtype)))
                self._names.append(list(names))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        _draw(self, self.hidden_size)

    def flatten_parameters(self) -> None:
        """Nothing: it matters on CUDA devices only."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters, layer by layer and direction by direction."""
        return [[getattr(self, name) for name in names] for names in self._names]

    @property
    def _flat_weights(self) -> list[Parameter]:
        return [weight for weights in self.all_weights for weight in weights]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, usual in (
            ("proj_size", 0),
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0),
            ("bidirectional", False),
        ):
            value = getattr(self, name)
            if value != usual:
                text += f", {name}={value}"
        return text

    # checks

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Errors for an input of another dtype or shape than the layer's."""
        wanted = self._flat_weights[0].dtype
        if input.dtype != wanted:
            raise InputError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({wanted}). Convert input: "
                f"input.to({wanted}), or convert model: model.to({input.dtype})"
            )
        if input.size(-1) != self.input_size:
            raise UsageError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.size(-1)}"
            )

    def _state_shapes(self, batch: int) -> list[tuple[int, ...]]:
        layers = self.num_layers * (2 if self.bidirectional else 1)
        shapes: list[tuple[int, ...]] = [(layers, batch, self.proj_size or self.hidden_size)]
        return [*shapes, (layers, batch, self.hidden_size)] if self.mode == "LSTM" else shapes

    def _check_states(self, states: tuple[Tensor, ...], batch: int) -> None:
        texts = ("Expected hidden[0] size {}, got {}", "Expected hidden[1] size {}, got {}")
        if self.mode != "LSTM":
            texts = ("Expected hidden size {}, got {}",)
        for state, shape, text in zip(states, self._state_shapes(batch), texts, strict=True):
            if tuple(state.shape) != shape:
                raise UsageError(text.format(shape, list(state.shape)))

    def _check_ranks(self, states: tuple[Tensor, ...], batched: bool) -> None:
        rank = 3 if batched else 2
        if all(state.dim() == rank for state in states):
            return
        what = "batched 3-D" if batched else "unbatched 2-D"
        if self.mode == "LSTM":
            raise UsageError(
                f"For {what} input, hx and cx should also be {rank}-D but got ({states[0].dim()}-D, "
                f"{states[1].dim()}-D) tensors"
            )
        raise UsageError(f"For {what} input, hx should also be {rank}-D but got {states[0].dim()}-D tensor")

    # forward

    def _run(self, input: Tensor, states: tuple[Tensor, ...], batch_first: bool, mask: Tensor | None) -> Any:
        network = _NETWORKS[self.mode]
        made = network(
            input,
            states if self.mode == "LSTM" else states[0],
            self._flat_weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            batch_first,
            mask=mask,
        )
        return made[0], made[1:]

    def _zeros(self, batch: int, input: Tensor) -> tuple[Tensor, ...]:
        return tuple(zeros(shape, dtype=input.dtype, device=input.device) for shape in self._state_shapes(batch))

    def _given(self, hx: Any) -> tuple[Tensor, ...] | None:
        if hx is None:
            return None
        if self.mode != "LSTM":
            return (hx,)
        if len(hx) != 2:
            raise RangeError(f"LSTM: hx should be a pair (h_0, c_0), but got {len(hx)} of {type(hx).__name__}")
        return tuple(hx)

    def _result(self, states: tuple[Tensor, ...]) -> Any:
        return states if self.mode == "LSTM" else states[0]

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> Any:
        padded, lengths, sizes = packed.padded
        self.check_input(padded, packed.batch_sizes)
        states = self._given(hx)
        if states is None:
            states = self._zeros(len(sizes), padded)
        else:
            if packed.sorted_indices is not None:
                states = tuple(state.index_select(1, packed.sorted_indices) for state in states)
            self._check_states(states, len(sizes))
        output, states = self._run(padded, states, False, inside(padded.shape[0], lengths))
        if packed.unsorted_indices is not None:
            states = tuple(state.index_select(1, packed.unsorted_indices) for state in states)
        return packed.with_padded(output), self._result(states)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """The outputs of the last layer and the last states of all: (layers · directions, batch, size)."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        kind = "RNN" if self.mode.startswith("RNN") else self.mode
        if input.dim() not in (2, 3):
            tensor = " tensor" if kind == "RNN" else ""
            raise InputError(f"{kind}: Expected input to be 2D or 3D, got {input.dim()}D{tensor} instead")
        batched = input.dim() == 3
        batch_dim = 0 if self.batch_first else 1
        states = self._given(hx)
        if states is not None:
            self._check_ranks(states, batched)
        if not batched:
            input = input.unsqueeze(batch_dim)
            states = None if states is None else tuple(state.unsqueeze(1) for state in states)
        self.check_input(input, None)
        batch = input.size(batch_dim)
        if states is None:
            states = self._zeros(batch, input)
        else:
            self._check_states(states, batch)
        output, states = self._run(input, states, self.batch_first, None)
        if not batched:
            output = output.squeeze(batch_dim)
            states = tuple(state.squeeze(1) for state in states)
        return output, self._result(states)


class RNN(RNNBase):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh) at each step, or with max(·, 0) for `nonlinearity="relu"`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise InputError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            nonlinearity, args = args[3], args[:3] + args[4:]
        else:
            nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise InputError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory; with `proj_size`, hidden states are projected to that size."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase):
    """Gated recurrent units."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise InputError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)


class RNNCellBase(Module):
    """One step: (batch, input_size) or (input_size) and the states give the new states. Parameters `weight_ih`,
    `weight_hh`, `bias_ih`, `bias_hh` start as U(-b, b) with b = 1/sqrt(hidden_size)."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size
        self.weight_ih = Parameter(empty((gates, input_size), device=device, dtype=dtype))
        self.weight_hh = Parameter(empty((gates, hidden_size), device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(gates, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        _draw(self, self.hidden_size)

    def _step(self, cell: Any, input: Tensor, hx: Any, count: int) -> tuple[Tensor, ...]:
        name = self._get_name()
        if input.dim() not in (1, 2):
            raise InputError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        states = None if hx is None else tuple(hx) if count == 2 else (hx,)
        for place, state in enumerate(states or ()):
            if state.dim() not in (1, 2):
                which = f"hx[{place}]" if count == 2 else "hidden"
                raise InputError(f"{name}: Expected {which} to be 1D or 2D, got {state.dim()}D instead")
        batched = input.dim() == 2
        if not batched:
            input = input.unsqueeze(0)
        if states is None:
            states = (zeros((input.size(0), self.hidden_size), dtype=input.dtype, device=input.device),) * count
        elif not batched:
            states = tuple(state.unsqueeze(0) if state.dim() == 1 else state for state in states)
        made = cell(
            input, states if count == 2 else states[0], self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        )
        results = made if count == 2 else (made,)
        return results if batched else tuple(result.squeeze(0) for result in results)


class RNNCell(RNNCellBase):
    """One step of an RNN."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        cells = {"tanh": rnn_tanh_cell, "relu": rnn_relu_cell}
        if self.nonlinearity not in cells:
            raise UsageError(f"Unknown nonlinearity: {self.nonlinearity}")
        return self._step(cells[self.nonlinearity], input, hx, 1)[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM; the states are a pair."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, ...]:
        return self._step(lstm_cell, input, hx, 2)


class GRUCell(RNNCellBase):
    """One step of gated recurrent units."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(gru_cell, input, hx, 1)[0]
