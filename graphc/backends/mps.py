"""`torch.backends.mps`: devices that graphc has no back end for."""


def is_available() -> bool:
    """False: tensors cannot live there."""
    return False


def is_built() -> bool:
    """False: there is no such back end."""
    return False
