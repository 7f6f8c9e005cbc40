"""Linear algebra over matrices in the last two dimensions, as PyTorch's `torch.linalg` has it."""
