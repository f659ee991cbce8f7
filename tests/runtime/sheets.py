"""Draw the sheets of docs/drawing.md with the trained small FLUX: `python3 dev.py sheets`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hosted_files import REQUEST
from mini_flux import trained
from mini_flux.learn import world
from PIL import Image, ImageDraw

from flux_hotswap.prediction.sizes import PRESETS

from .environment import ROOT
from .studio import Picture, Studio, image, psnr

FOLDER = ROOT / "docs" / "images"
QUALITY = 80
SIDE = 192
"""Longest side of a picture on a sheet."""

GAP, LINE = 8, 16

AS_COMFYUI: dict[str, Any] = {"cpu": False, "arguments": ("--cpu",)}
"""A server with ComfyUI's own choice of attention, which the hosted code's text came from."""

STAR = "a large yellow star on a dotted blue ground"
PROMPTS = (
    STAR,
    "a small red heart in the top left corner on a white ground",
    "a green circle beside an orange square on a striped purple ground",
    "three white diamonds on a red ground",
    "a large black ring on a checked orange ground",
    "a turquoise cross at the bottom on a black ground",
    "a purple triangle above a yellow circle on a green ground",
    "two red stars on a dotted white ground",
)


@dataclass(frozen=True)
class Cell:
    """A picture on a sheet, and what is written below it."""

    picture: Picture
    text: str


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all sheets, or those that are named."""
    parser = argparse.ArgumentParser(prog="dev.py sheets", description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(SHEETS))
    names = parser.parse_args(argv).names or list(SHEETS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Studio(**AS_COMFYUI) as studio:
        put_loras(studio)
        for name in names:
            sheet(SHEETS[name](studio)).save(FOLDER / f"{name}.webp", quality=QUALITY, method=6)
            sys.stderr.write(f"docs/images/{name}.webp\n")
    return 0


def put_loras(studio: Studio) -> None:
    """Put the trained LoRAs where requests can name them."""
    folder = studio.server.models_dir / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    for style in world.STYLES:
        (folder / f"{style}.safetensors").write_bytes(trained.read(style))


def styled(style: str, **fields: Any) -> dict[str, Any]:
    """A request for the star with one LoRA."""
    prompt = f"{world.STYLES[style]}, {STAR}"
    return {"prompt": prompt, "lora": f"{style}.safetensors"} | fields


def pictures(studio: Studio) -> list[list[Cell]]:
    """Dev's pictures, and schnell's."""
    return [
        [Cell(studio.draw(prompt=prompt, model=model)[0], prompt) for prompt in part]
        for model, part in (("dev", PROMPTS[:4]), ("dev", PROMPTS[4:]), ("schnell", PROMPTS[:4]))
    ]


def aspect_ratios(studio: Studio) -> list[list[Cell]]:
    """All of them."""
    cells = [Cell(studio.draw(prompt=STAR, aspect_ratio=ratio)[0], ratio) for ratio in PRESETS]
    return [cells[:6], cells[6:]]


def guidance(studio: Studio) -> list[list[Cell]]:
    """From none to much, for three seeds."""
    return [
        [
            Cell(
                studio.draw(prompt=PROMPTS[1], guidance_scale=value, seed=seed)[0],
                f"guidance {value:g}",
            )
            for value in (0, 1, 2, 3, 6)
        ]
        for seed in (1, 2, 3)
    ]


def steps(studio: Studio) -> list[list[Cell]]:
    """Few and many."""
    rows = []
    for model, counts in (("dev", (1, 2, 4, 8, 16, 28)), ("schnell", (1, 2, 3, 4))):
        rows.append(
            [
                Cell(
                    studio.draw(prompt=PROMPTS[2], model=model, num_inference_steps=count)[0],
                    f"{model}, {count} steps",
                )
                for count in counts
            ]
        )
    return rows


def strength(studio: Studio) -> list[list[Cell]]:
    """Image to image, from a picture of another shape in another colour."""
    (before,) = studio.draw(prompt="a large red circle on a white ground")
    name = studio.upload("before.png", before)
    cells = [Cell(before, "the picture given")]
    for value in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0):
        drawn = studio.draw(prompt=STAR, image=name, prompt_strength=value)
        cells.append(Cell(drawn[0], f"prompt_strength {value:g}"))
    return [cells[:4], cells[4:]]


def inpaint(studio: Studio) -> list[list[Cell]]:
    """A shape painted into a part of a picture."""
    (before,) = studio.draw(prompt="a red heart on the left on a striped green ground")
    mask = np.zeros_like(before)
    mask[128:384, 288:496] = 1
    after = studio.draw(
        prompt="a red heart beside a yellow star on a striped green ground",
        image=studio.upload("before.png", before),
        mask=studio.upload("mask.png", mask),
        prompt_strength=1.0,
    )
    return [[Cell(before, "image"), Cell(mask, "mask"), Cell(after[0], "inpainted")]]


def lora_scale(studio: Studio) -> list[list[Cell]]:
    """Each of the two LoRAs at several scales, and both."""
    scales = (-1, 0, 0.5, 1, 1.5)
    rows = [
        [
            Cell(studio.draw(**styled(style, lora_scale=scale))[0], f"{style}, {scale:g}")
            for scale in scales
        ]
        for style in world.STYLES
    ]
    both = styled("sticker", extra_lora="hollow.safetensors")
    both["prompt"] = f"{world.STYLES['hollow']}, {both['prompt']}"
    rows.append([Cell(studio.draw(**both)[0], "both, 1")])
    return rows


def go_fast(studio: Studio) -> list[list[Cell]]:
    """bf16, int8, and their difference, without and with a LoRA."""
    rows = []
    # With go_fast a scale counts 1.5 times: 1 there is 1.5 here.
    for wanted, scale in (({"prompt": STAR}, None), (styled("sticker"), 1.5)):
        exact = {} if scale is None else {"lora_scale": scale}
        (plain,) = studio.draw(**wanted | exact)
        (fast,) = studio.draw(**wanted, go_fast=True)
        away = np.clip(8 * np.abs(fast - plain), 0, 1)
        texts = ("bf16", "int8", "difference times 8")
        parts = zip((plain, fast, away), texts, strict=True)
        rows.append([Cell(picture, text) for picture, text in parts])
    return rows


def engines(studio: Studio) -> list[list[Cell]]:
    """The hosted arithmetic's picture, and the other engines' of the same request."""
    drawn: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "int8, LoRA as hosted": ({}, {}),
        "int8, LoRA whole": ({"go_fast_lora": "whole"}, {}),
        "bf16": ({}, {"go_fast": False}),
    }
    (hosted,) = studio.draw_with({"engine": "fp8"}, REQUEST)
    row = [Cell(hosted, "fp8")]
    for name, (inputs, fields) in drawn.items():
        (picture,) = studio.draw_with(inputs, {**REQUEST, **fields})
        row.append(Cell(picture, f"{name}: {psnr(picture, hosted):.0f} dB"))
    return [row]


def modes(studio: Studio) -> list[list[Cell]]:
    """The three ways to use an input picture, for the page of fields."""
    (before,) = studio.draw(prompt="a red circle beside a green square on a white ground")
    name = studio.upload("before.png", before)
    mask = np.zeros_like(before)
    mask[:, before.shape[1] // 2 :] = 1
    given: dict[str, Any] = {"prompt": STAR, "image": name}
    drawn = [
        studio.draw(prompt=STAR),
        studio.draw(**given, prompt_strength=0.4),
        studio.draw(**given, prompt_strength=1.0, mask=studio.upload("mask.png", mask)),
    ]
    return [[Cell(before, ""), *(Cell(picture, "") for (picture,) in drawn)]]


SHEETS: dict[str, Callable[[Studio], list[list[Cell]]]] = {
    "pictures": pictures,
    "aspect_ratios": aspect_ratios,
    "guidance": guidance,
    "steps": steps,
    "strength": strength,
    "inpaint": inpaint,
    "lora_scale": lora_scale,
    "go_fast": go_fast,
    "engines": engines,
    "modes": modes,
}


def sheet(rows: list[list[Cell]]) -> Image.Image:
    """Put pictures in rows, each with its text below."""
    small = [[_small(cell) for cell in row] for row in rows]
    widths = [sum(one.width + GAP for one in row) + GAP for row in small]
    heights = [max(one.height for one in row) + 2 * GAP for row in small]
    made = Image.new("RGB", (max(widths), sum(heights)), "white")
    top = 0
    for row, height in zip(small, heights, strict=True):
        left = GAP
        for one in row:
            made.paste(one, (left, top + GAP))
            left += one.width + GAP
        top += height
    return made


def _small(cell: Cell) -> Image.Image:
    picture = image(cell.picture)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    lines = _wrapped(cell.text, max(picture.width, SIDE // 2) // 6)
    made = Image.new(
        "RGB", (max(picture.width, SIDE // 2), picture.height + LINE * len(lines)), "white"
    )
    made.paste(picture, (0, 0))
    ImageDraw.Draw(made).text((0, picture.height + 2), "\n".join(lines), fill="black")
    return made


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
