"""The text that other tools read from a picture: A1111's `parameters`, also called infotext.

First the prompt, then a line of `<lora:name:strength>` tags, then one line of `Key: value` pairs.
The tags are there because readers (A1111, Forge, CivitAI, image browsers) know a LoRA's strength
from nowhere else: without one CivitAI shows 1.0, whatever was used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

_RUN: Final = ("prompt", "model", "checkpoint", "loras", "steps", "seed", "guidance")
"""Without any of these the pictures may come from anywhere."""

_MARKUP = re.compile(
    r"(negative prompt|\bsteps|^(?:negative )?template|<(?:lora|lyco|hypernet))(?=:)",
    re.IGNORECASE | re.MULTILINE,
)
"""What readers take for structure, most of them anywhere in the text."""

_SUFFIX = re.compile(r"\.(?:safetensors|sft|gguf|ckpt|pth?|bin)$", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff,:\"\\<>{}\[\]]")
_TAG_OF_CIVITAI = re.compile(r"<lora:[A-Za-z0-9_.-]+:[0-9.]+>")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AUTOV2 = 10
"""Digits of a file's SHA-256 that CivitAI calls AutoV2."""


@dataclass(frozen=True)
class _Lora:
    """A LoRA as the readers name it; what is not known is empty."""

    name: str
    tag: str
    hash: str


def parameters(record: Mapping[str, Any]) -> str:
    """Return A1111's text for a picture, empty when the record tells nothing of a run.

    Names lose the characters that readers have a use for. In the prompt a space goes before the
    colon of words such as `Negative prompt:`, so that no prompt can pass for another field.

    Args:
        record: what ran, by key; keys may be missing or None, others than these are not read.
            prompt, model (dev or schnell), checkpoint and version are texts. loras is a list of
            mappings with file, sha256 and strength, or arrives where less of that does. steps is
            how many ran, start_step how many were skipped before them; width, height and seed are
            whole too. mode is txt2img, img2img or inpaint; prompt_strength counts in the last two.
            guidance is a number.

    Raises:
        TypeError: a value has another type.
        ValueError: a sha256 is not one.
    """
    prompt = _MARKUP.sub(r"\1 ", _text(record, "prompt"))
    loras = _loras(record)
    details = ", ".join(f"{key}: {value}" for key, value in _details(record, loras).items())
    if not any(record.get(key) not in (None, "", []) for key in _RUN):
        return ""
    tags = " ".join(lora.tag for lora in loras if lora.tag)
    return "\n".join(part for part in (prompt, tags, details) if part.strip())


def _details(record: Mapping[str, Any], loras: list[_Lora]) -> dict[str, str]:
    """Return the pairs of the last line, in A1111's order; there is always one."""
    found: dict[str, str] = {}
    steps = _whole(record, "steps")
    if steps is not None:
        # In A1111 "Steps" is the length of the schedule, of which an input picture skips a part.
        # Its "Simple" is our schedule: even times, pushed by the model's own shift.
        found["Steps"] = str(steps + (_whole(record, "start_step") or 0))
        found |= {"Sampler": "Euler", "Schedule type": "Simple", "CFG scale": "1"}
    if (guidance := _number(record, "guidance")) is not None:
        found["Distilled CFG Scale"] = _plain(guidance)
    if (seed := _whole(record, "seed")) is not None:
        found["Seed"] = str(seed)
    width, height = _whole(record, "width"), _whole(record, "height")
    if width is not None and height is not None:
        found["Size"] = f"{width}x{height}"
    if model := _model(record):
        found["Model"] = model
    strength = _number(record, "prompt_strength")
    if strength is not None and _text(record, "mode") in ("img2img", "inpaint"):
        found["Denoising strength"] = _plain(strength)
    version = _UNSAFE.sub("_", _text(record, "version"))
    return found | _hashes(loras) | {"Version": f"flux-hotswap {version}".strip()}


def _hashes(loras: list[_Lora]) -> dict[str, str]:
    """Return the LoRAs' hashes, in A1111's form and in that of CivitAI's extension.

    CivitAI takes a LoRA of the first form whose tag it cannot read for one of strength 1. Those
    are in the second form only.
    """
    known = [lora for lora in loras if lora.hash]
    named = {lora.name: lora.hash for lora in known if _TAG_OF_CIVITAI.fullmatch(lora.tag)}
    found: dict[str, str] = {}
    if named:
        pairs = ", ".join(f"{name}: {digits}" for name, digits in named.items())
        found["Lora hashes"] = json.dumps(pairs, ensure_ascii=False)
    if known:
        all_known = {f"lora:{lora.name}": lora.hash for lora in known}
        found["Hashes"] = json.dumps(all_known, ensure_ascii=False)
    return found


def _loras(record: Mapping[str, Any]) -> list[_Lora]:
    listed = record.get("loras")
    if not isinstance(listed, list | None):
        raise _wrong("loras", listed, "a list")
    found: list[_Lora] = []
    owners: dict[str, str] = {}
    for entry in cast("list[Any]", listed or []):
        if not isinstance(entry, Mapping):
            raise _wrong("loras", entry, "a list of mappings")
        lora = cast("Mapping[str, Any]", entry)
        digits = _autov2(lora)
        name = _unique(_name(_text(lora, "file")) or "lora", digits, owners)
        strength = _number(lora, "arrives" if "arrives" in lora else "strength")
        tag = "" if strength is None else f"<lora:{name}:{_plain(strength)}>"
        found.append(_Lora(name, tag, digits))
    return found


def _unique(name: str, digits: str, owners: dict[str, str]) -> str:
    """Return the name, with a number when another file has it, as `lora.safetensors` often is."""
    free, number = name, 1
    while owners.setdefault(free, digits) != digits:
        number += 1
        free = f"{name}_{number}"
    return free


def _autov2(lora: Mapping[str, Any]) -> str:
    sha256 = _text(lora, "sha256").lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 of a LoRA is {sha256!r:.80}; give 64 hexadecimal digits")
    return sha256[:_AUTOV2]


def _model(record: Mapping[str, Any]) -> str:
    model = _text(record, "model")
    return _name(_text(record, "checkpoint")) or _name(model and f"flux1-{model}")


def _name(file: str) -> str:
    """Return a file's name without folder and suffix, safe as a value in any reader."""
    last = re.split(r"[\\/]", file)[-1]
    return _UNSAFE.sub("_", _SUFFIX.sub("", last)).strip()


def _plain(value: float) -> str:
    """Return a number without exponent or trailing zeros: CivitAI reads digits and a point."""
    digits = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if digits == "-0" else digits


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str | None):
        raise _wrong(key, value, "a text")
    return value or ""


def _whole(record: Mapping[str, Any], key: str) -> int | None:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | None):
        raise _wrong(key, value, "a whole number")
    return value


def _number(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise _wrong(key, value, "a number")
    return value


def _wrong(key: str, value: object, wanted: str) -> TypeError:
    return TypeError(f"{key!r} of the record is {value!r:.80}; give {wanted}")
