"""ComfyUIs on many GPUs: Ray Serve starts, watches, replaces and scales them.

Nothing else of the pack imports Ray, and this is imported only where `--workers ray` asks for it.
The queue, the predictions and the choice of who draws what stay with the API process.
"""
