"""Thin nodes, one topic a file. Nothing is imported here: ComfyUI asks for them when it wants them."""
