"""Does the small FLUX draw what is asked, with every part of the pack in the way?

    python bench/drawing.py             # 200 prompts with dev and with schnell
    python bench/drawing.py --short --output drawing.json
    python bench/drawing.py --only agreement sizes styles       # the other parts stay as they are

All pictures come from the shipped workflows on a real ComfyUI, 512 x 512. The prompts hold a shape
in a colour on a ground that training never saw together; a plain check of colours and outlines
says what a picture shows. How well it is drawn is measured by its edges: how far they are from the
ideal ones, how rough they are, and how many pixels are wrong away from them. Writes
bench/results/drawing.json.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, kept, machine, write

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

import numpy as np
from mini_flux import trained
from mini_flux.learn import looks, world
from mini_flux.learn.judge import judge
from mini_flux.learn.looks import Looks
from mini_flux.learn.world import Scene
from runtime.sheets import STAR, put_loras, styled
from runtime.studio import Studio, psnr

from flux_hotswap.prediction.sizes import PRESETS

Found = dict[str, Any]

STEPS = {"dev": 28, "schnell": 4}
SCALES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
STYLED_SCALES = (0.5, 1.0, 1.5)
ROUTES = {"bf16": False, "go_fast": True}
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
GUIDANCES = (0.0, 1.0, 2.0, 3.0, 6.0)
SEED = 20


def agreement(studio: Studio, model: str, scenes: Sequence[Scene], **more: Any) -> Found:
    """How many pictures agree with their prompts."""
    right: Counter[str] = Counter()
    of: Counter[str] = Counter()
    wrong: list[str] = []
    drawn: list[Looks] = []
    places = textures = 0
    for seed, scene in enumerate(scenes):
        asked = {"model": model, "num_inference_steps": STEPS[model], "seed": seed} | more
        (picture,) = studio.draw(prompt=scene.prompt, **asked)
        drawn.append(looks.measure(picture, scene))
        verdict = judge(picture, scene)
        things = f"{len(scene.things)} things" if len(scene.things) > 1 else "1 thing"
        of[things] += 1
        right[things] += verdict.agrees
        places += verdict.agrees and verdict.places
        textures += looks.has_its_texture(picture, scene)
        wrong += [] if verdict.agrees else [scene.prompt]
    return {
        "prompts": len(scenes),
        "agree": sum(right.values()),
        "agree_and_in_place": places,
        "textures": textures,
        "by_things": {name: [right[name], of[name]] for name in sorted(of)},
        "wrong": wrong,
        "looks": shown(drawn),
    }


def shown(drawn: Sequence[Looks]) -> Found:
    """The mean looks of pictures, and how open the lines of the worst are."""
    found = asdict(looks.mean(drawn)) | {"most_open": max(one.open for one in drawn)}
    return {name: round(value, 3) for name, value in found.items()}


def looked(studio: Studio, scenes: Sequence[Scene], **asked: Any) -> Found:
    """The mean looks of these scenes' pictures."""
    drawn = [
        looks.measure(studio.draw(prompt=scene.prompt, seed=seed, **asked)[0], scene)
        for seed, scene in enumerate(scenes)
    ]
    return shown(drawn)


def sizes(studio: Studio, scenes: Sequence[Scene]) -> Found:
    """The looks of pictures in every aspect ratio, by model."""
    made: Found = {}
    for model, steps in STEPS.items():
        asked: dict[str, Any] = {"model": model, "num_inference_steps": steps}
        made[model] = {one: looked(studio, scenes, aspect_ratio=one, **asked) for one in PRESETS}
    return {"prompts": len(scenes), "looks": made}


def styles(studio: Studio, scenes: Sequence[Scene]) -> Found:
    """The looks of pictures with each LoRA, by route and scale."""
    made: Found = {}
    for style in world.STYLES:
        named = [world.in_style(scene, style) for scene in scenes]
        visible = [scene for scene in named if looks.has_edges(scene)]
        lora = f"{style}.safetensors"
        made[style] = {
            "prompts": len(visible),
            "looks": {
                route: {
                    str(at): looked(studio, visible, lora=lora, lora_scale=at, go_fast=go_fast)
                    for at in STYLED_SCALES
                }
                for route, go_fast in ROUTES.items()
            },
        }
    return made


def guidance(studio: Studio, scenes: Sequence[Scene]) -> Found:
    """How many pictures agree at each guidance."""
    made = {
        str(value): agreement(studio, "dev", scenes, guidance_scale=value) for value in GUIDANCES
    }
    return {"prompts": len(scenes), "agree": {name: found["agree"] for name, found in made.items()}}


def lora_scale(studio: Studio) -> Found:
    """How far each LoRA moves the picture, root mean square of 0..1, by scale."""
    moved: Found = {}
    for style in world.STYLES:
        (plain,) = studio.draw(**styled(style, lora_scale=0.0))
        moved[style] = {
            str(scale): round(rms(studio.draw(**styled(style, lora_scale=scale))[0] - plain), 4)
            for scale in SCALES
        }
    return moved


def rms(difference: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt((difference**2).mean()))


def fp8(studio: Studio, scenes: Sequence[Scene]) -> Found:
    """How alike the pictures of go_fast are to those of bf16, in dB, without and with a LoRA."""
    made: dict[str, list[float]] = {"without a LoRA": [], "with a LoRA": []}
    for seed, scene in enumerate(scenes):
        for name, values in made.items():
            asked: dict[str, Any] = {"prompt": scene.prompt, "seed": seed}
            exact: dict[str, Any] = {}
            if name == "with a LoRA":
                asked["prompt"] = world.named(scene, "sticker").prompt
                asked["lora"] = "sticker.safetensors"
                exact = {"lora_scale": 1.5}  # what the fp8 route makes of 1
            (slow,), (fast,) = studio.draw(**asked | exact), studio.draw(**asked, go_fast=True)
            values.append(round(psnr(slow, fast), 2))
    return {
        name: {"median": round(statistics.median(values), 1), "dB": values}
        for name, values in made.items()
    }


def image_to_image(studio: Studio, scenes: Sequence[Scene]) -> Found:
    """By strength: how alike the picture stays, in dB, and how many agree with the new prompt."""
    made: Found = {str(strength): {"dB": [], "agree": 0} for strength in STRENGTHS}
    for seed, (scene, other) in enumerate(itertools.pairwise(scenes)):
        (before,) = studio.draw(prompt=other.prompt, seed=seed)
        name = studio.upload(f"before-{seed}.png", before)
        for strength in STRENGTHS:
            asked = {"prompt": scene.prompt, "image": name, "prompt_strength": strength}
            (after,) = studio.draw(**asked, seed=seed)
            made[str(strength)]["dB"].append(psnr(before, after))
            made[str(strength)]["agree"] += judge(after, scene).agrees
    for found in made.values():
        found["dB"] = round(statistics.median(found["dB"]), 1)
    return {"pictures": len(scenes) - 1, "by_strength": made}


def inpaint(studio: Studio) -> Found:
    """A star painted into the right half of pictures that hold a heart on the left."""
    agree, kinds = 0, list(world.KINDS)
    outside: list[float] = []
    inside: list[float] = []
    for seed, kind in enumerate(kinds):
        (before,) = studio.draw(
            prompt="a red heart on the left on a striped green ground", seed=seed
        )
        mask = np.zeros_like(before)
        mask[128:384, 288:496] = 1
        prompt = f"a red heart beside a yellow {kind} on a striped green ground"
        (after,) = studio.draw(
            prompt=prompt,
            image=studio.upload("before.png", before),
            mask=studio.upload("mask.png", mask),
            prompt_strength=1.0,
            seed=seed,
        )
        things = tuple(
            world.Thing(one, colour, x, 0.5, 0.19)
            for one, colour, x in (("heart", "red", 0.28), (kind, "yellow", 0.72))
        )
        agree += judge(after, Scene("green", "striped", things, prompt)).agrees
        kept = mask == 0
        outside.append(round(psnr(after[kept], before[kept]), 1))
        inside.append(round(psnr(after[~kept], before[~kept]), 1))
    return {
        "pictures": len(kinds),
        "agree": agree,
        "kept_dB": statistics.median(outside),
        "painted_dB": statistics.median(inside),
    }


def batch(studio: Studio) -> Found:
    """Seconds for four pictures of schnell at four steps, after the first."""
    asked: dict[str, Any] = {"prompt": STAR, "model": "schnell", "num_inference_steps": 4}
    studio.draw(**asked)
    seconds = []
    for seed in range(3):
        begun = time.monotonic()
        studio.draw(**asked, num_outputs=4, seed=seed)
        seconds.append(round(time.monotonic() - begun, 2))
    return {"seconds_median": statistics.median(seconds), "seconds": seconds}


def few(scenes: Sequence[Scene]) -> Sequence[Scene]:
    """Some of the prompts, for what draws each of them many times."""
    return scenes[: max(len(scenes) // 15, 4)]


PARTS: dict[str, Callable[[Studio, Sequence[Scene]], Found]] = {
    "batch": lambda studio, _: batch(studio),
    "lora_scale": lambda studio, _: lora_scale(studio),
    "inpaint": lambda studio, _: inpaint(studio),
    "fp8": lambda studio, scenes: fp8(studio, few(scenes)),
    "image_to_image": lambda studio, scenes: image_to_image(studio, few(scenes)),
    "guidance": lambda studio, scenes: guidance(studio, few(scenes)),
    "styles": lambda studio, scenes: styles(studio, few(scenes)),
    "sizes": lambda studio, scenes: sizes(studio, few(scenes)),
    "agreement": lambda studio, scenes: {name: agreement(studio, name, scenes) for name in STEPS},
}


def files() -> Found:
    """How large the trained files are."""
    packed = sum(path.stat().st_size for path in trained.PACKED.glob("*.xz"))
    unpacked = sum(len(trained.read(name)) for name in trained.FILES)
    return {"packed_mb": round(packed / 1e6, 2), "unpacked_mb": round(unpacked / 1e6, 2)}


def main() -> int:
    """Draw everything, print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--short", action="store_true", help="4 prompts")
    parser.add_argument("--prompts", type=int, default=200, help="for dev and for schnell")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="keep the other parts")
    parser.add_argument("--output", type=Path, default=RESULTS / "drawing.json")
    options = parser.parse_args()
    scenes = world.held_out_scenes(4 if options.short else options.prompts, SEED)
    report: Found = {"machine": machine("torch"), "files": files()}
    report |= kept(options.output, PARTS) if options.only else {}
    with Studio() as studio:
        put_loras(studio)
        for name in options.only or PARTS:
            report[name] = PARTS[name](studio, scenes)
            write(options.output, report)
    for name, found in report.get("agreement", {}).items():
        print(f"{name}: {found['agree']} of {found['prompts']} agree, {found['looks']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
