"""Tensor work without ComfyUI: noise, encoders. Imports torch, numpy and PIL, never comfy."""
