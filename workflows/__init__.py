"""The shipped workflows and the builder that writes them.

`*.json` are templates of the graph editor, `api/*.json` the same graphs as API prompts. Standard
library only; nothing of this is imported by ComfyUI.
"""
