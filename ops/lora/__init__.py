"""LoRA files: the names in them, and how they fit a model."""
