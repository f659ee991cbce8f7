"""Train everything and pack it: `python3 dev.py train`.

Takes three to five hours on two cores. It can be stopped at any time and goes on where it was.
States and the log lie in the work folder, the trained files with the log, their loss curves and
sheets beside `trained.py`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save_file

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

log = logging.getLogger(__package__)

LOG = "train.log"


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not trained yet, then pack."""
    parser = argparse.ArgumentParser(prog="dev.py train", description=__doc__)
    parser.add_argument("comfyui", type=Path, help="where the tokenizers are")
    parser.add_argument("work", type=Path, help="for the states")
    parser.add_argument("--output", type=Path, default=trained.PACKED)
    parser.add_argument(
        "--further",
        action="store_true",
        help="go on from the trained files that are there, not from nothing; the VAE stays",
    )
    options = parser.parse_args(argv)
    options.work.mkdir(parents=True, exist_ok=True)
    with logged(options.work / LOG):
        train(options)
    shutil.copyfile(options.work / LOG, options.output / LOG)
    return 0


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write what the stages say into a file as well."""
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def train(options: argparse.Namespace) -> None:
    """All stages, and their files."""
    tokenizers = text.Tokenizers(*load_tokenizers(options.comfyui))
    known = known_model(options.work) if options.further else None
    encoder = train_vae.load_encoder(options.work)
    tools = (tokenizers, encoder)
    train_dev.train(options.work, *tools, known)
    if known is None:
        train_vae.train(options.work)
    dev = as_stored(load_dev(options.work), tokenizers)
    schnell = train_schnell.train(options.work, tools, dev)
    deltas = {style: train_lora.train(options.work, tools, dev, style) for style in world.STYLES}
    write(options.work, options.output, dev, schnell, deltas)
    sheets(options.output, tools, dev, as_stored(schnell, tokenizers))


def known_model(work: Path) -> Model:
    """The dev that is packed already; its VAE is put into `work`."""
    files = {name: load(trained.read(name)) for name in ("flux1-dev", "t5xxl_fp16", "clip_l", "ae")}
    known = {
        name: {key: one.float() for key, one in state.items()} for name, state in files.items()
    }
    model = Model(guidance=True)
    model.flux.load_state_dict(known["flux1-dev"])
    model.t5.from_file(known["t5xxl_fp16"])
    clip = {name.removeprefix("text_model."): one for name, one in known["clip_l"].items()}
    model.clip.load_state_dict(clip)
    weight, bias = vae.from_file(known["ae"])
    save_file({"weight": weight.contiguous(), "bias": bias}, work / "encoder.safetensors")
    save_file(known["ae"], work / "vae.safetensors")
    return model


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
    log.info("%.2f MB packed", total / 1e6)


def sheets(
    output: Path, tools: tuple[text.Tokenizers, vae.Encoder], dev: Model, schnell: Model
) -> None:
    """Sample sheets of held-out prompts, beside the weights."""
    sample.sheet(dev, *tools, output / "dev.webp", steps=28)
    sample.sheet(schnell, *tools, output / "schnell.webp", steps=4, guidance=None)


if __name__ == "__main__":
    raise SystemExit(main())
