"""Trace a function: its operations become a typed graph that can be printed, kept and compiled.

Prints the traced graph, the graph of its gradient, and the value, which compiled code computed.
"""

import graphc as torch


def f(x, w):
    """x f32[4,3], w f32[3,2]: mean of relu(x w)²."""
    return torch.relu(x @ w).pow(2).mean()


torch.manual_seed(0)
x, w = torch.randn(4, 3), torch.randn(3, 2)

graph = torch.trace(f, x, w)
print(graph)
print(f"{len(graph.nodes)} nodes, inputs {[str(node.type) for node in graph.inputs]}")

print(torch.trace(torch.grad(f), x, w))

# Without a trace the same operations record the same graph; it is compiled when a value is looked at.
print("value:", round(f(x, w).item(), 6))
