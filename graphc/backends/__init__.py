"""Switches of libraries under PyTorch's names: programs set them, few of them mean something here."""

from graphc.backends import cpu, cuda, cudnn, mkl, mkldnn, mps, openmp

__all__ = ["cpu", "cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]
