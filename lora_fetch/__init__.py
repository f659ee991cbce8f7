"""Any LoRA source to a checked file on disk: parse, resolve, download, verify, store.

text -> `parse` -> `Source` -> `Resolved` -> `Download` -> `header.read` -> `Store`

Each of `services` reads its texts, resolves its sources and explains its refusals.

Needs neither torch nor ComfyUI.
"""
