"""Public names: files."""

from graphc.saving import load, save
