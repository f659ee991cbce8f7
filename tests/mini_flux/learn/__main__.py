"""Train everything and pack it: `python3 dev.py train`.

Takes about three hours on two cores. It can be stopped at any time and goes on where it was. States
lie in the work folder, the trained files with their loss curves and sheets beside `trained.py`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from mini_flux import loras, trained
from mini_flux.load_diffusers import load_tokenizers

from . import (
    pack,
    sample,
    text,
    train_dev,
    train_lora,
    train_schnell,
    train_vae,
    vae,
    world,
)
from .model import Model


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not trained yet, then pack."""
    parser = argparse.ArgumentParser(prog="dev.py train", description=__doc__)
    parser.add_argument("comfyui", type=Path, help="where the tokenizers are")
    parser.add_argument("work", type=Path, help="for the states")
    parser.add_argument("--output", type=Path, default=trained.PACKED)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizers = text.Tokenizers(*load_tokenizers(options.comfyui))
    encoder = train_vae.load_encoder(options.work)
    tools = (tokenizers, encoder)
    train_dev.train(options.work, *tools)
    train_vae.train(options.work)
    dev = as_stored(load_dev(options.work), tokenizers)
    schnell = train_schnell.train(options.work, tools, dev)
    deltas = {style: train_lora.train(options.work, tools, dev, style) for style in world.STYLES}
    write(options.work, options.output, dev, schnell, deltas)
    sheets(options.output, tools, dev, as_stored(schnell, tokenizers))
    return 0


def load_dev(work: Path) -> Model:
    """The trained dev."""
    model = Model(guidance=True)
    model.load_state_dict(load_file(work / "dev.safetensors"))
    return model


def as_stored(model: Model, tokenizers: text.Tokenizers) -> Model:
    """The model with the weights that its files hold: bf16, and no words that are not used."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(torch.bfloat16).float())
        clip, t5 = used_tokens(tokenizers)
        for name, table in model.named_parameters():
            if name.endswith("token_embedding.weight"):
                table.copy_(pack.only_rows(table, clip))
            elif name == "t5.shared.weight":
                table.copy_(pack.only_rows(table, t5))
    return model


def used_tokens(tokenizers: text.Tokenizers) -> tuple[set[int], set[int]]:
    """CLIP's and T5's tokens that prompts of the world can have, padding included."""
    clip, t5 = {text.CLIP_END}, {0}
    for prompt in world.vocabulary():
        more_clip, more_t5 = tokenizers.one(prompt)
        clip |= set(more_clip)
        t5 |= set(more_t5)
    return clip, t5


def write(
    work: Path, output: Path, dev: Model, schnell: Model, deltas: dict[str, loras.Delta]
) -> None:
    """Pack all files; the loss curves go beside them."""
    clip = {
        name if name.startswith("text_model.") else f"text_model.{name}": value
        for name, value in dev.clip.state_dict().items()
        if "position_ids" not in name
    }
    files = {
        "flux1-dev": dev.flux.state_dict(),
        "flux1-schnell": schnell.flux.state_dict(),
        "t5xxl_fp16": dev.t5.as_file(),
        "clip_l": clip,
        "ae": load_file(work / "vae.safetensors"),
        **{style: loras.diffusers(delta) for style, delta in deltas.items()},
    }
    total = sum(
        pack.write(state, output / f"{name}.safetensors.xz") for name, state in files.items()
    )
    for curve in sorted(work.glob("*.loss.jsonl")):
        shutil.copyfile(curve, output / curve.name)
    logging.getLogger(__name__).info("%.2f MB in %s", total / 1e6, output)


def sheets(
    output: Path, tools: tuple[text.Tokenizers, vae.Encoder], dev: Model, schnell: Model
) -> None:
    """Sample sheets of held-out prompts, beside the weights."""
    sample.sheet(dev, *tools, output / "dev.webp", steps=28)
    sample.sheet(schnell, *tools, output / "schnell.webp", steps=4, guidance=None)


if __name__ == "__main__":
    raise SystemExit(main())
