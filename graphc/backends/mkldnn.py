"""`torch.backends.mkldnn`: a library that graphc does not use."""

enabled = False


def is_available() -> bool:
    """False: there is no oneDNN."""
    return False
