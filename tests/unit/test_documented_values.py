"""Numbers and names on the pages are those of the code: each phrase is made from its constants."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import cast

import pytest
from runtime.pages import page

from flux_hotswap.engine import fetching, kept, models, trial
from flux_hotswap.files import header, tar
from flux_hotswap.files.settings import Settings
from flux_hotswap.files.tokens import FILE_VARIABLE, default_file
from flux_hotswap.lora_fetch import store
from flux_hotswap.ops import encode, naming
from flux_hotswap.ops.noise import H100_MULTIPROCESSORS, LATENT_CHANNELS, grid_threads
from flux_hotswap.ops.picture import LATENT_CELL
from flux_hotswap.ops.picture_file import FILE_LIMIT
from flux_hotswap.ops.safety import decide, opennsfw, weights
from flux_hotswap.ops.tokens import CLIP_LENGTH
from flux_hotswap.prediction.plan import SCHNELL_STEPS, T5_LENGTH
from flux_hotswap.prediction.sizes import GRID, IMAGE_LIMIT, PRESETS, custom_size
from flux_hotswap.prediction.spec import GO_FAST_MULTIPLIER, RANDOM_SEED_LIMIT
from flux_hotswap.texts import MAX_ALL, MAX_WORD, MAX_WORDS
from flux_hotswap.tools.nodes_info import RECORDED

A100_MULTIPROCESSORS = 108
MIB, GIB = 2**20, 2**30
RULES = Settings()
TOKENS = cast("Path", default_file())

INPUTS, LATENT = "js/docs/FluxHotswapInputs.md", "js/docs/FluxHotswapLatent.md"
LOADER, LORA = "js/docs/FluxHotswapLoader.md", "js/docs/FluxHotswapLora.md"
NOISE, PROMPT = "js/docs/FluxHotswapNoise.md", "js/docs/FluxHotswapPrompt.md"
SAFETY, SAVE = "js/docs/FluxHotswapSafety.md", "js/docs/FluxHotswapSave.md"
FIELDS, SOURCES, GO_FAST = "docs/fields.md", "docs/lora_sources.md", "docs/go_fast.md"
NODES = RECORDED.relative_to(RECORDED.parents[2]).as_posix()
"""The nodes with their tooltips, as ComfyUI was heard to say them."""


def square_where_gpus_differ() -> int:
    """Return the side of the largest square image that an A100 and an H100 draw alike."""
    threads = grid_threads(2**40, A100_MULTIPROCESSORS)
    return LATENT_CELL * math.isqrt(threads // LATENT_CHANNELS)


NEAR = f"{round(square_where_gpus_differ(), -1)}x{round(square_where_gpus_differ(), -1)}"
FOLDER = f"models/{models.FOLDERS[0]}/{models.CACHE_FOLDER}"
CACHE = f"{kept.DEFAULT_SIZE // GIB}G"

PHRASES = [
    (INPUTS, f"{len(PRESETS)} shapes, or `custom`"),
    (INPUTS, f"schnell needs only {SCHNELL_STEPS} steps"),
    (INPUTS, f"times {GO_FAST_MULTIPLIER:g} with `go_fast`"),
    (INPUTS, f"nearest multiple of {GRID}"),
    (LATENT, f"shrunk to fit {IMAGE_LIMIT}x{IMAGE_LIMIT}"),
    (LATENT, f"rounded up to a multiple of {GRID}"),
    (LATENT, f"cells of {LATENT_CELL}x{LATENT_CELL} pixels"),
    (LATENT, f"latent of {LATENT_CHANNELS} channels"),
    (LOADER, f"files in `models/{models.FOLDERS[0]}` and `models/{models.FOLDERS[1]}`"),
    (LOADER, f"`{FOLDER}`"),
    (LOADER, f"`{kept.SIZE}` sets how much it may take, `{CACHE}` if it is not set"),
    (LORA, f"`models/{fetching.LORAS}/{store.FOLDER}`"),
    (LORA, f"after {RULES.recheck_after / 3600:g} hours"),
    (LORA, f"applied {GO_FAST_MULTIPLIER:g} times as strongly"),
    (NOISE, f"{H100_MULTIPROCESSORS} for an H100 or H200, {A100_MULTIPROCESSORS} for an A100"),
    (NOISE, f"from about {NEAR} up"),
    (NODES, f"These two differ from about {NEAR} up."),
    ("README.md", f"from about {NEAR} up"),
    (PROMPT, f"{T5_LENGTH['dev']} tokens for dev or {T5_LENGTH['schnell']} for schnell"),
    (PROMPT, f"CLIP at {CLIP_LENGTH}"),
    (NODES, f"{T5_LENGTH['dev']} tokens (dev) or {T5_LENGTH['schnell']} (schnell)"),
    (SAFETY, f"`models/{weights.FOLDER}`"),
    (SAFETY, f"pip install {opennsfw.PACKAGE}"),
    (SAFETY, ", ".join(f"`{action}`" for action in decide.ACTIONS)),
    (SAFETY, f"safe if that says `{decide.SAFE_LABEL}`"),
    (SAVE, f"`{naming.DEFAULT_PREFIX}`"),
    (SAVE, f"more than {naming.MAX_FOLDERS} folders or {naming.MAX_PREFIX_BYTES:,} bytes"),
    (SAVE, f"webp side ends at {encode.MAX_SIDE['webp']} pixels"),
    (SAVE, f"a jpg side at {encode.MAX_SIDE['jpg']}"),
    (FIELDS, f"up to {FILE_LIMIT // MIB} MB"),
    (FIELDS, f"shrunk to fit {IMAGE_LIMIT}x{IMAGE_LIMIT}"),
    (FIELDS, f"264 becomes {custom_size(264, 264).width}"),
    (FIELDS, f"from 0 to {RANDOM_SEED_LIMIT - 1}"),
    (FIELDS, f"{T5_LENGTH['dev']} tokens of it with dev and {T5_LENGTH['schnell']} with schnell"),
    (SOURCES, f"`models/{fetching.LORAS}/{store.FOLDER}/`"),
    (SOURCES, f"below {RULES.cache_bytes // GIB} GB"),
    (SOURCES, f"in the last {RULES.keep_recent / 60:g} minutes"),
    (SOURCES, f"again after {RULES.recheck_after / 3600:g} hours"),
    (SOURCES, f"| `FLUX_HOTSWAP_MAX_SIZE` | `{RULES.max_bytes // GIB}G` |"),
    (SOURCES, f"| `FLUX_HOTSWAP_CACHE_SIZE` | `{RULES.cache_bytes // GIB}G` |"),
    (SOURCES, f"| `FLUX_HOTSWAP_RECHECK_HOURS` | `{RULES.recheck_after / 3600:g}` |"),
    (SOURCES, f"| `HF_ENDPOINT` | `{RULES.endpoints.hub}` |"),
    (SOURCES, f"| `{FILE_VARIABLE}` | `~/{TOKENS.relative_to(Path.home())}` |"),
    (SOURCES, f"less than {RULES.reserve_bytes // GIB} GB free"),
    (SOURCES, f"header that is too large ({header.MAX_HEADER // MIB} MB)"),
    (SOURCES, f"more than {header.MAX_TENSORS:,} tensors"),
    (SOURCES, f"more than {tar.MAX_ENTRIES:,} entries"),
    (SOURCES, f"{MAX_WORDS} words of {MAX_WORD} characters, {MAX_ALL:,} characters in all"),
    (SOURCES, f"up to {RULES.connections} when that one brings less than"),
    (SOURCES, f"less than {RULES.fast_enough // MIB} MiB/s"),
    (GO_FAST, f"`{FOLDER}`"),
    (
        GO_FAST,
        f"`{kept.SIZE}` sets how much all of them may take (`{CACHE}` if it is not set)",
    ),
    (GO_FAST, f"`go_fast_multiplier`, {GO_FAST_MULTIPLIER:g} by default"),
    (GO_FAST, f"`{trial.VARIABLE}`"),
    ("README.md", f"`{FOLDER}`"),
    ("README.md", f"up to {kept.DEFAULT_SIZE // GIB} GB in all"),
    ("README.md", f"`models/{weights.FOLDER}`"),
]


@pytest.mark.parametrize(("name", "phrase"), PHRASES, ids=lambda text: text[:60])
def test_page_says_what_the_code_does(name: str, phrase: str) -> None:
    assert phrase in re.sub(r"\s+", " ", page(name))


@pytest.mark.parametrize("file", weights.FILES.values(), ids=lambda file: file.name)
def test_safety_page_names_the_file(file: weights.WeightFile) -> None:
    (row,) = re.findall(rf"^ *\| `{re.escape(file.name)}` \| .*$", page(SAFETY), re.M)
    assert f"]({file.url})" in row
    assert f"| {file.size / 1e6:.0f} MB |" in row
    assert f"`{file.sha256[:8]}`" in row


@pytest.mark.parametrize("name", ["README.md", "docs/registry.md", NODES])
def test_pages_agree_on_the_size_of_the_safety_files(name: str) -> None:
    total = sum(file.size for file in weights.FILES.values())
    assert f"{total / 1e9:.2f} GB" in page(name)


@pytest.mark.parametrize(
    ("script", "name"),
    [("sources", "MAX_TEXT"), ("tokens", "MAX_PROMPT")],
    ids=["source", "prompt"],
)
def test_the_editor_asks_about_what_the_server_looks_at(script: str, name: str) -> None:
    code = page("gate/routes.py")
    limit = re.findall(rf"^{name}: Final = (\d+)$", code, re.M)
    assert re.findall(r"^const LONGEST = (\d+);$", page(f"js/ui/{script}.mjs"), re.M) == limit != []
