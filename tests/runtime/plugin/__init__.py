"""A ComfyUI plug-in for tests only: small models load, and tensors can be saved from a graph."""

from .nodes import NODE_CLASS_MAPPINGS
from .small_models import install

install()

__all__ = ["NODE_CLASS_MAPPINGS"]
