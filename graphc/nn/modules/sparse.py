"""Embeddings, where PyTorch has them."""

from graphc.nn.embedding import Embedding, EmbeddingBag

__all__ = ["Embedding", "EmbeddingBag"]
