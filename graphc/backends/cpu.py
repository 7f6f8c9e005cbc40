"""`torch.backends.cpu`."""

from graphc.codegen.llvm.host import host_target


def get_cpu_capability() -> str:
    """The widest vectors that kernels use, as PyTorch names them: "AVX512", "AVX2" or "DEFAULT"."""
    return {64: "AVX512", 32: "AVX2"}.get(host_target().vector_bytes, "DEFAULT")
