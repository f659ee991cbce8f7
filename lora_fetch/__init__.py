"""Any LoRA source to a checked file on disk: parse, resolve, download, verify, store.

text -> `parse` -> `Source` -> `resolve` -> `Resolved` -> `Download` -> `header.read` -> `Store`

Needs neither torch nor ComfyUI.
"""
