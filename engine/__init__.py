"""What needs ComfyUI and is no node: loading models, running them fast, fetching for a prompt."""
