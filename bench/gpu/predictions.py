"""What was predicted before a GPU ran it, from counted operations and bytes. Stdlib only."""

from __future__ import annotations

STEP_MS = {
    "4090": {"bf16": 683, "fp8_e4m3fn_fast": 546, "int8": 451, "int8, LoRA": 491},
    "3090": {"bf16": 1446, "int8": 804, "int8, LoRA": 850},
    "5090": {"bf16": 505, "fp8_e4m3fn_fast": 384, "int8": 313, "int8, LoRA": 337},
    "H100": {"bf16": 201, "fp8_e4m3fn_fast": 182, "int8": 200, "int8, LoRA": 202},
}
"""Milliseconds of one step of FLUX.1 dev, 1024x1024, batch 1, as it is (not compiled)."""

COMPILED_MS = {"H100": {"bf16": 153}}


def of_step(card: str, engine: str, *, lora: bool, compiled: bool) -> str:
    """Return the prediction for a card, nothing where there is none.

    Args:
        card: as its driver calls it.
        engine: of the step.
        lora: whether a LoRA of rank 16 is on it.
        compiled: whether its blocks are compiled.
    """
    card = card.replace("H200", "H100")
    engine = "int8" if engine == "int8 of ComfyUI" else engine
    table = COMPILED_MS if compiled else STEP_MS
    known = next((times for name, times in table.items() if name in card), {})
    value = known.get(f"{engine}, LoRA" if lora else engine)
    return f"{value} ms" if value else ""
