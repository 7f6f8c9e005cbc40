"""The graph IR: types, operators, nodes, graphs, and their text form. Importing it registers every operator."""

import graphc.ir.ops as ops
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Location, Node
from graphc.ir.opdef import OPS, OpDef
from graphc.ir.parser import parse_graph, parse_graphs
from graphc.ir.types import DTYPES, DType, TensorType
from graphc.ir.verify import verify

__all__ = [
    "DTYPES",
    "OPS",
    "Builder",
    "DType",
    "Graph",
    "Location",
    "Node",
    "OpDef",
    "TensorType",
    "evaluate",
    "ops",
    "parse_graph",
    "parse_graphs",
    "verify",
]
