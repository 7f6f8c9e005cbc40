"""`graphc trace`: what a function compiles to, at any stage."""

from __future__ import annotations

from typing import Any

import click

import graphc
from graphc.cli.common import json_option, output_option, read_text, to_json, unknown, write_text
from graphc.cli.target import Argument, load_callable, parse_arguments
from graphc.ir import Graph, parse_graphs, verify
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
def trace_command(
    target: str, arguments: str, stage: str, grad: bool, loc: bool, output: str, as_json: bool
) -> None:
    """Trace NAME in FILE.py, or read graphs in text form, and print them at a stage.

    NAME is a function, a module class (which is instantiated) or a module object. A result that is no single number is
    summed before its gradient is taken.
    """
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
    if target == "-" or target.endswith(".gir"):
        if arguments:
            raise click.UsageError("--args belongs to FILE.py:NAME; a graph in text form has its types already")
        source = "<stdin>" if target == "-" else target
        graphs = [verify(graph) for graph in parse_graphs(read_text(target, ".gir"), source)]
        if grad:
            graphs = [grad_graph(graph) for graph in graphs]
    else:
        graphs = [trace_target(target, parse_arguments(arguments), grad)]
    texts = [stage_text(graph, stage, loc) for graph in graphs]
    if as_json:
        write_text(output, to_json({"stage": stage, "graphs": [graph.name for graph in graphs], "texts": texts}))
    else:
        write_text(output, "\n\n".join(text.rstrip("\n") for text in texts))
