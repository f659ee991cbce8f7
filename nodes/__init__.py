"""Thin nodes, one topic a file. Imports nothing: ComfyUI asks for the nodes when it wants them."""
