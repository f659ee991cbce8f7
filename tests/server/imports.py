"""Imports the pack as ComfyUI does and prints what that brought, as one line of JSON.

`python imports.py COMFYUI_DIR PACK_DIR TESTS_DIR`: {"seconds": ..., "cpu_seconds": ...,
"nodes": ..., "modules": ...}
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import time
from pathlib import Path

comfyui, pack, tests = sys.argv[1:4]
sys.path[0] = tests
from runtime import rescue  # noqa: E402 - the path is set above

rescue.install()
sys.path[0] = comfyui
sys.argv = ["main.py", "--cpu"]
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
from comfy_api.latest import io  # noqa: E402, F401

import nodes  # noqa: E402, F401 - what ComfyUI has loaded before any custom node

before = set(sys.modules)
start, cpu = time.perf_counter(), time.process_time()
spec = importlib.util.spec_from_file_location(
    "pack", Path(pack) / "__init__.py", submodule_search_locations=[pack]
)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
sys.modules["pack"] = module
spec.loader.exec_module(module)
classes = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
schemas = [node.GET_SCHEMA().node_id for node in classes]
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
new = sorted(name for name in set(sys.modules) - before if not name.startswith("pack"))
found = {"seconds": seconds, "cpu_seconds": cpu, "nodes": schemas, "modules": new}
json.dump(found, sys.stdout)
