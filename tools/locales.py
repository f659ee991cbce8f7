"""Writes the locale files: `python -m flux_hotswap.tools.locales`, or `--check` to fail on drift.

English comes from the recorded nodes and from `locales/en/main.json`, which holds the scripts' own
messages. Every other language comes from `locales/phrases/<language>.json`, which maps each English
text to its translation: a text that changes needs a new one.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .nodes_info import RECORDED

ROOT: Final = Path(__file__).resolve().parent.parent
LOCALES: Final = ROOT / "locales"
SECTION: Final = "fluxHotswap"
OURS: Final = "FluxHotswap"
SAME: Final = frozenset(
    {
        *("LATENT", "MODEL", "CLIP", "NOISE", "CONDITIONING", "SIGMAS", "VAE", "vae", "clip"),
        *("lora", "{route}", "{route}: {reason}", "{seconds} s", "LoRA: {loras}"),
        *("Replicate: {name}", "Hugging Face: {name}", "CivitAI: {name}"),
    }
)
"""Texts that are the same in every language."""
SPECIAL: Final = frozenset("{}@|$")
"""Signs that mean something to the editor's own translator."""

Phrases = Mapping[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check every locale file; returns 1 on a difference or a missing translation."""
    parser = argparse.ArgumentParser(prog="flux_hotswap.tools.locales", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on drift")
    check = parser.parse_args(argv).check
    drifted = 0
    for path, text in built().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        drifted += 1
        if check:
            name = path.relative_to(ROOT).as_posix()
            sys.stderr.write(f"{name} is out of date; run python -m flux_hotswap.tools.locales\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    lacking = list(gaps())
    for gap in lacking:
        sys.stderr.write(f"{gap}\n")
    return int(bool(lacking) or (check and drifted > 0))


def built() -> dict[Path, str]:
    """Return each generated file and the text it should hold."""
    nodes, messages = english_nodes(), english_messages()
    files = {
        LOCALES / "en" / "nodeDefs.json": _json(nodes),
        LOCALES / "en" / "commands.json": _json(commands(messages)),
        ROOT / "js" / "lib" / "messages.mjs": _module(messages),
    }
    for language, phrases in languages().items():
        folder, said = LOCALES / language, translated(messages, phrases)
        files |= {
            folder / "nodeDefs.json": _json(translated(nodes, phrases)),
            folder / "commands.json": _json(commands(said)),
            folder / "main.json": _json({SECTION: said}),
        }
    return files


def languages() -> dict[str, Phrases]:
    """Return the phrases of each language but English."""
    return {path.stem: _read(path) for path in sorted((LOCALES / "phrases").glob("*.json"))}


def english_nodes() -> dict[str, Any]:
    """Return names and tooltips of our nodes, as ComfyUI wants them in nodeDefs.json."""
    return {
        name: {
            "display_name": entry["display_name"],
            "description": entry["description"],
            "inputs": dict(_inputs(entry["input"])),
            "outputs": {
                str(index): {"name": title, "tooltip": tooltip}
                for index, (title, tooltip) in enumerate(
                    zip(entry["output_name"], entry["output_tooltips"], strict=True)
                )
            },
        }
        for name, entry in _read(RECORDED).items()
        if name.startswith(OURS)
    }


def english_messages() -> dict[str, str]:
    """Return the messages of the scripts by their key."""
    return _read(LOCALES / "en" / "main.json")[SECTION]


def commands(messages: Mapping[str, str]) -> dict[str, Any]:
    """Return the labels of the commands that the scripts add to the editor."""
    return {
        "FluxHotswap_PasteRequest": {"label": f"FLUX Hotswap: {messages['paste']}"},
        "FluxHotswap_CopyRequest": {"label": f"FLUX Hotswap: {messages['copy']}"},
    }


def translated(value: Any, phrases: Phrases) -> Any:
    """Return value with every text translated; a text without a translation stays English."""
    if isinstance(value, str):
        return phrases.get(value, value)
    entries: dict[str, Any] = value
    return {key: translated(entry, phrases) for key, entry in entries.items()}


def gaps() -> Iterator[str]:
    """Yield what is wrong with the translations, one line each."""
    shown = set(texts(english_nodes()))
    wanted = {*shown, *texts(english_messages())} - SAME
    for language, phrases in languages().items():
        yield from (f"{language}: lacks {text!r}" for text in sorted(wanted - phrases.keys()))
        yield from (f"{language}: {text!r} is not used" for text in phrases.keys() - wanted)
        for text in sorted(wanted & phrases.keys()):
            if not phrases[text].strip():
                yield f"{language}: {text!r} is empty"
            elif _placeholders(text) != _placeholders(phrases[text]):
                yield f"{language}: {text!r} has other placeholders than its translation"
            elif text in shown and SPECIAL & set(phrases[text]):
                yield f"{language}: {text!r} holds a sign that the editor takes for its own"


def texts(value: Any) -> Iterator[str]:
    """Yield every text in lists and mappings."""
    if isinstance(value, str):
        yield value
        return
    entries: list[Any] = list(value.values()) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType,reportUnknownMemberType]
    for entry in entries:
        yield from texts(entry)


def _inputs(groups: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, str]]]:
    for group in ("required", "optional"):
        for name, spec in groups.get(group, {}).items():
            yield name, {"name": name, "tooltip": spec[1]["tooltip"]}


def _placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"\{\w+\}", text))


def _module(messages: dict[str, str]) -> str:
    lines = [f"  {key}: {json.dumps(text, ensure_ascii=False)}," for key, text in messages.items()]
    head = [
        "// Written by python -m flux_hotswap.tools.locales, from locales/en/main.json.",
        "// @ts-check",
        "",
        "/** @type {Record<string, string>} */",
        "export const MESSAGES = {",
    ]
    return "\n".join([*head, *lines, "};", ""])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
