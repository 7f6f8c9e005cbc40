"""`torch.backends.openmp`: a library that graphc does not use."""


def is_available() -> bool:
    """False: the runtime has threads of its own."""
    return False
