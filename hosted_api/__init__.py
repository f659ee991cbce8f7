"""The hosted model's HTTP API before one ComfyUI or several, so that clients run unchanged.

call -> `ask` -> Job in the store -> `dispatch` -> a worker's ComfyUI -> files -> `views` -> answer

`job`, `ask`, `views`, `logs` and `pick` are pure. Needs neither torch nor ComfyUI; what ComfyUI
itself brings (aiohttp) is enough.
"""
