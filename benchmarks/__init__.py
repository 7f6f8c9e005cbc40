"""Speed of graphc beside PyTorch, JAX, tinygrad, NumPy and numexpr: `python -m benchmarks`, or `make bench`."""
