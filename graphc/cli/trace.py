"""`graphc trace`: what a function compiles to, at any stage."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import click

import graphc
from graphc.cli.common import json_option, note, output_option, to_json, unknown, write_text
from graphc.cli.devices import DEVICES
from graphc.cli.target import Argument, bind, load_callable, parse_arguments, read_graphs, user_code
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.llvm.host import host_target
from graphc.codegen.target import Target
from graphc.compiled import target_of, with_options
from graphc.errors import CompileError
from graphc.ir import Builder, Graph
from graphc.nn import Module
from graphc.passes.autodiff import grad_graph
from graphc.pipeline import STAGES, stage_text
from graphc.tensors.casting import counting_as
from graphc_runtime.devices.cuda import current_device, is_available

GPU_STAGES = ("cuda", "ptx", "sass")


@click.command("trace")
@click.argument("target", metavar="FILE.py:NAME|FILE.gir|-")
@click.option("--args", "arguments", default="", metavar="TYPES", help='Types of the arguments: "x=f32[64,1,32,32]".')
@click.option("--stage", default="traced", metavar="STAGE", show_default=True, help=f"One of: {', '.join(STAGES)}.")
@click.option("--grad", is_flag=True, help="Append the gradients by every float input.")
@click.option("--device", default="", metavar="DEVICE", help="For which device: cpu or cuda.  [default: the stage's]")
@click.option(
    "--arch", default="", metavar="SM", help="The GPU's architecture: sm_80.  [default: that of the GPU here]"
)
@click.option("--loc", is_flag=True, help="Show the source lines that each value comes from (graph stages).")
@output_option
@json_option
def trace_command(
    target: str,
    arguments: str,
    stage: str,
    grad: bool,
    device: str,
    arch: str,
    loc: bool,
    output: str,
    as_json: bool,
) -> None:
    """Trace NAME in FILE.py, or read graphs in text form, and print them at a stage.

    NAME is a function, a module class (which is instantiated) or a module object. With --grad, a result that is no
    single number is summed; parameters of a module have gradients too. The stages of a GPU need none: without one
    they are those of an H100, or of --arch. ptx and sass need a compiler of CUDA.
    """
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
    device = device or ("cuda" if stage in GPU_STAGES else "cpu")
    machine = _machine(device, arch)
    graphs = graphs_of(target, arguments, grad, device)
    texts = [stage_text(graph, stage, loc, device, machine) for graph in graphs]
    if as_json:
        write_text(output, to_json({"stage": stage, "graphs": [graph.name for graph in graphs], "texts": texts}))
    else:
        write_text(output, "\n\n".join(text.rstrip("\n") for text in texts))


def _machine(device: str, arch: str) -> Target:
    """What is compiled for. A usage error for other devices, and for architectures that there is no code for."""
    if device.partition(":")[0] not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device.partition(":")[0] == "cpu":
        if arch:
            raise click.UsageError(f"--arch {arch} is of a GPU: add --device cuda")
        return host_target()
    try:
        if arch or not is_available():
            return with_options(cuda_target(arch) if arch else cuda_target())
        return target_of(_named(device))
    except CompileError as error:
        raise click.UsageError(f"--arch {arch}: {error.message}") from error


def _named(device: str) -> str:
    return device if ":" in device else f"{device}:{current_device()}"


def graphs_of(target: str, arguments: str, grad: bool, device: str) -> list[Graph]:
    """The graphs of a file in text form, or the one of `FILE.py:NAME` called with the types of `--args`, on `device`
    as far as autocast is concerned.

    A usage error when `--args` comes with graphs in text form.
    """
    if target == "-" or target.endswith(".gir"):
        if arguments:
            raise click.UsageError("--args belongs to FILE.py:NAME; a graph in text form has its types already")
        return [with_gradients(graph) if grad else graph for graph in read_graphs(target)]
    with counting_as(device.partition(":")[0]):
        return [_trace_target(target, parse_arguments(arguments), grad)]


def _trace_target(target: str, arguments: list[Argument], grad: bool) -> Graph:
    """The graph of `FILE.py:NAME` called with tensors of these types, with its gradients if they are wanted."""
    function = load_callable(target)
    name = target.rpartition(":")[2]
    bound = bind(name, function, arguments)
    positional = [argument.type for argument in bound.args]
    named = {name: argument.type for name, argument in bound.kwargs.items()}
    with user_code(f"{name} was traced"):
        return graphc.trace(_Differentiated(function) if grad else function, *positional, **named)


class _Differentiated:
    """A function or module followed by its gradients.

    It gives the first tensor of the result, summed if it is no single number, the other tensors, and the gradients of
    the first one by every float argument and every parameter.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__signature__ = inspect.signature(getattr(function, "forward", function))

    def named_parameters(self) -> list[tuple[str, graphc.Tensor]]:
        """As of a module, so that the inputs of the graph have the parameters' names."""
        return list(self.function.named_parameters()) if isinstance(self.function, Module) else []

    def named_buffers(self) -> list[tuple[str, graphc.Tensor]]:
        """Likewise."""
        return list(self.function.named_buffers()) if isinstance(self.function, Module) else []

    def __call__(self, *args: graphc.Tensor, **kwargs: graphc.Tensor) -> list[graphc.Tensor | None]:
        floats = [x.requires_grad_() for x in (*args, *kwargs.values()) if x.is_floating_point()]
        wanted = [*floats, *(p for _, p in self.named_parameters() if p.requires_grad)]
        if not wanted:
            raise _no_float_input(self.__name__)
        result = self.function(*args, **kwargs)
        first, *others = [result] if isinstance(result, graphc.Tensor) else list(result)
        if first.numel() != 1:
            note(f"note: the gradients are those of the sum of the result of shape {list(first.shape)}")
            first = first.sum()
        return [first, *others, *graphc.autograd.grad(first, wanted, materialize_grads=True)]


def _no_float_input(name: str) -> click.UsageError:
    """The error for gradients of what has nothing to differentiate by."""
    return click.UsageError(
        f"--grad: {name} has no float input to differentiate by; leave --grad out, or give a float type such as f32"
    )


def with_gradients(graph: Graph) -> Graph:
    """`graph` with the gradients of its first output, summed if it is no single number, by every float input."""
    if not any(x.dtype.is_float for x in graph.inputs):
        raise _no_float_input(f"@{graph.name}")
    first = graph.outputs[0] if graph.outputs else None
    if first is not None and first.dtype.is_float and first.type.size != 1:
        note(f"note: the gradients are those of the sum of the result {first.type}")
        b = Builder.of(graph)
        total = b.reduce_sum(first, tuple(range(first.type.rank)))
        graph = graph.with_outputs((total, *graph.outputs[1:]))
    return grad_graph(graph)
