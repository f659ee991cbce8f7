"""A ComfyUI plug-in for tests only: small models load, and tensors can be saved from a graph."""

from . import small_models, small_safety
from .nodes import NODE_CLASS_MAPPINGS

small_models.install()
small_safety.install()

__all__ = ["NODE_CLASS_MAPPINGS"]
