"""`torch.backends.mkl`: a library that graphc does not use."""


def is_available() -> bool:
    """False: there is no MKL."""
    return False
