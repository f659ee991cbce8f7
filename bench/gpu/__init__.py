"""The stages of `bench/gpu_kit.py`; each runs in a process of its own."""
