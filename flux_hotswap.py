"""This folder as the package `flux_hotswap`, whatever the folder is called.

ComfyUI loads the pack under a name of its own. Where it is used without ComfyUI (`python -m
lora_fetch`, the tests, the tools), `import flux_hotswap.lora_fetch` finds the same modules, since
this file tells Python to look for them beside it.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parent)]
