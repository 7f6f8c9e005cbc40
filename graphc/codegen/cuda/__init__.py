"""The CUDA back end: kernel IR to CUDA C to cubins."""
