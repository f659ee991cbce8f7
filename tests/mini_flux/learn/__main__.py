"""Train everything and pack it: `python3 dev.py train`.

Takes about five hours on two cores that know bf16, ten on others; docs/drawing.md says more of it.
It can be stopped at any time and goes on where it was. Stages can be named, everything is trained
if none is. States and the log lie in the work folder, the trained files with the log, their loss
curves and sheets beside `trained.py`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
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
    train_mend,
    train_schnell,
    train_vae,
    vae,
    world,
)
from .model import Model

log = logging.getLogger(__package__)

AE = "ae"
"""The VAE's name among the packed files."""

CLIP = "text_model."
"""What the names of the tensors in CLIP's file begin with."""

LOG = "train.log"
STAGES = ("dev", "vae", "schnell", *world.STYLES)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not trained yet, then pack."""
    parser = argparse.ArgumentParser(prog="dev.py train", description=__doc__)
    parser.add_argument("comfyui", type=Path, help="where the tokenizers are")
    parser.add_argument("work", type=Path, help="for the states")
    parser.add_argument("--output", type=Path, default=trained.PACKED)
    parser.add_argument(
        "--further",
        type=Path,
        nargs="?",
        const=trained.PACKED,
        metavar="FOLDER",
        help="go on from the packed files there, ours if no folder is named; the VAE stays",
    )
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"some of {', '.join(STAGES)}")
    options = parser.parse_intermixed_args(argv)
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"no stage is called {', '.join(sorted(unknown))}")
    options.work.mkdir(parents=True, exist_ok=True)
    options.output.mkdir(parents=True, exist_ok=True)
    with logged(options.work / LOG):
        train(options)
    for told in (options.work / LOG, *options.work.glob("*.loss.jsonl")):
        shutil.copyfile(told, options.output / told.name)
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
    """The stages that are asked for, each with its files."""
    work, output = options.work, options.output
    stages = options.stages or [one for one in STAGES if one != "vae" or not options.further]
    tokenizers = text.Tokenizers(*load_tokenizers(options.comfyui))
    known = known_model(options.further, work) if options.further else None
    tools = (tokenizers, train_vae.load_encoder(work))
    if "dev" in stages:
        model = train_dev.train(work, tools, known)
        train_mend.train(work, tools, model)
        train_dev.save(model, work)
    elif known is not None:
        train_dev.save(known, work)
    dev = as_stored(load_dev(work), tokenizers)
    if "dev" in stages:
        write(output, dev_files(dev))
        sample.sheet(dev, *tools, output / "dev.webp", steps=28)
    if "vae" in stages:
        train_vae.train(work)
        write(output, {AE: load_file(work / "vae.safetensors")})
    elif known is not None and output.resolve() != options.further.resolve():
        shutil.copyfile(trained.file(AE, options.further), trained.file(AE, output))
    if "schnell" in stages:
        begun = known_file(options.further, "flux1-schnell")
        schnell = as_stored(train_schnell.train(work, tools, dev, begun), tokenizers)
        write(output, {"flux1-schnell": schnell.flux.state_dict()})
        sample.sheet(schnell, *tools, output / "schnell.webp", steps=4, guidance=None)
    for style in world.STYLES:
        if style in stages:
            begun = known_file(options.further, style)
            made = train_lora.train(work, tools, dev, style, begun)
            write(output, {style: loras.diffusers(made)})


def known_model(packed: Path, work: Path) -> Model:
    """The dev in a folder of packed files; the VAE's encoder is put into `work`."""
    known = {name: unpacked(packed, name) for name in ("flux1-dev", "t5xxl_fp16", "clip_l", AE)}
    model = Model(guidance=True)
    model.flux.load_state_dict(known["flux1-dev"])
    model.t5.from_file(known["t5xxl_fp16"])
    clip = {name.removeprefix(CLIP): one for name, one in known["clip_l"].items()}
    model.clip.load_state_dict(clip)
    weight, bias = vae.from_file(known[AE])
    save_file({"weight": weight.contiguous(), "bias": bias}, work / "encoder.safetensors")
    return model


def known_file(packed: Path | None, name: str) -> loras.State | None:
    """What a file in a folder of packed ones holds, if there is one to go on from."""
    if packed is None or not trained.file(name, packed).is_file():
        return None
    return unpacked(packed, name)


def unpacked(packed: Path, name: str) -> loras.State:
    """The tensors of a packed file, as float32."""
    return {key: one.float() for key, one in load(trained.read(name, packed)).items()}


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


def dev_files(dev: Model) -> dict[str, pack.State]:
    """What dev's files hold, by their names."""
    clip = {
        CLIP + name.removeprefix(CLIP): value
        for name, value in dev.clip.state_dict().items()
        if "position_ids" not in name
    }
    return {"flux1-dev": dev.flux.state_dict(), "t5xxl_fp16": dev.t5.as_file(), "clip_l": clip}


def write(output: Path, files: Mapping[str, pack.State]) -> None:
    """Pack files."""
    for name, state in files.items():
        size = pack.write(state, trained.file(name, output))
        log.info("%s: %.2f MB packed", name, size / 1e6)


if __name__ == "__main__":
    raise SystemExit(main())
