"""`graphc trace`: what a function compiles to, at any stage."""

from __future__ import annotations

import click

import graphc
from graphc.cli.common import json_option, note, output_option, to_json, unknown, write_text
from graphc.cli.target import Argument, bind, load_callable, parse_arguments, read_graphs, user_code
from graphc.ir import Builder, Graph
from graphc.passes.autodiff import grad_graph
from graphc.pipeline import STAGES, stage_text


@click.command("trace")
@click.argument("target", metavar="FILE.py:NAME|FILE.gir|-")
@click.option("--args", "arguments", default="", metavar="TYPES", help='Types of the arguments: "x=f32[64,1,32,32]".')
@click.option("--stage", default="traced", metavar="STAGE", show_default=True, help=f"One of: {', '.join(STAGES)}.")
@click.option("--grad", is_flag=True, help="Append the gradients of the result by every float input.")
@click.option("--loc", is_flag=True, help="Show the source lines that each value comes from (graph stages).")
@output_option
@json_option
def trace_command(target: str, arguments: str, stage: str, grad: bool, loc: bool, output: str, as_json: bool) -> None:
    """Trace NAME in FILE.py, or read graphs in text form, and print them at a stage.

    NAME is a function, a module class (which is instantiated) or a module object. A result that is no single number is
    summed before its gradient is taken.
    """
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
    if target == "-" or target.endswith(".gir"):
        if arguments:
            raise click.UsageError("--args belongs to FILE.py:NAME; a graph in text form has its types already")
        graphs = read_graphs(target)
    else:
        graphs = [trace_target(target, parse_arguments(arguments))]
    if grad:
        graphs = [with_gradients(graph) for graph in graphs]
    texts = [stage_text(graph, stage, loc) for graph in graphs]
    if as_json:
        write_text(output, to_json({"stage": stage, "graphs": [graph.name for graph in graphs], "texts": texts}))
    else:
        write_text(output, "\n\n".join(text.rstrip("\n") for text in texts))


def trace_target(target: str, arguments: list[Argument]) -> Graph:
    """The graph of `FILE.py:NAME` called with tensors of these types."""
    function = load_callable(target)
    bound = bind(target.rpartition(":")[2], function, arguments)
    positional = [_placeholder(a) for a in bound.args]
    named = {name: _placeholder(a) for name, a in bound.kwargs.items()}
    with user_code():
        return graphc.trace(function, *positional, **named)


def _placeholder(argument: Argument) -> graphc.Tensor:
    return graphc.zeros(argument.type.shape, dtype=getattr(graphc, argument.type.dtype.torch_name))


def with_gradients(graph: Graph) -> Graph:
    """`graph` with the gradients of its first output, summed if it is no single number, by every float input."""
    first = graph.outputs[0] if graph.outputs else None
    if first is not None and first.dtype.is_float and first.type.size != 1:
        note(f"note: the gradients are those of the sum of the result {first.type}")
        b = Builder.of(graph)
        total = b.reduce_sum(first, tuple(range(first.type.rank)))
        graph = graph.with_outputs((total, *graph.outputs[1:]))
    return grad_graph(graph)
