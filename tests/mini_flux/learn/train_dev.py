"""Train dev, and the text encoders with it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from . import batches, flux, loop, optimizer, paint, sample, text, vae, world
from .model import Model, noised

STEPS = 26000
RATE = 2e-3
HINT = 0.3
"""What the questions count; little once shapes are known."""


def phase(index: int) -> tuple[int, int]:
    """How many pictures a step has, and how many cells of each."""
    done = index / STEPS
    if done < 0.65:
        return 26, 128
    return (9, 400) if done < 0.86 else (4, 896)


class Questions(nn.Module):
    """What cells are asked beside the picture, so that shapes are learned sooner."""

    def __init__(self) -> None:
        """A linear layer each."""
        super().__init__()
        self.place = nn.Linear(flux.HIDDEN, 2 + len(world.KINDS))
        self.outline = nn.Linear(flux.HIDDEN, 1)

    def forward(self, middle: Tensor, end: Tensor, painted: paint.Painted) -> tuple[Tensor, Tensor]:
        """How wrong the answers are.

        After the double blocks: where in the nearest thing the cell lies, and which shape that is.
        At the end: how far the outline is.
        """
        outline = torch.tanh(painted.outline / 40)
        distance = ((self.outline(end)[..., 0] - outline) ** 2).mean()
        near = (painted.place.abs().amax(dim=-1) < 1.6).float()
        answer = self.place(middle)
        away = ((answer[..., :2] - painted.place.clamp(-2, 2)) ** 2).mean(dim=-1)
        scores, kinds = answer[..., 2:].transpose(1, 2), painted.kind.clamp(min=0)
        which = functional.cross_entropy(scores, kinds, reduction="none")
        return distance, ((away + 0.2 * which) * near).mean()


def train(folder: Path, tokenizers: text.Tokenizers, encoder: vae.Encoder) -> None:
    """Train; leaves `dev.safetensors` in `folder`."""
    torch.manual_seed(1)
    model = Model(guidance=True)
    optimizers = optimizer.for_model([model], RATE)
    questions = Questions()
    asking = torch.optim.AdamW(questions.parameters(), lr=RATE, weight_decay=0.0)
    fast = torch.compile(model.flux, dynamic=False)

    def step(index: int) -> dict[str, float]:
        optimizer.set_rate(optimizers, RATE * loop.pace(index, STEPS))
        dice = loop.dice(2, index)
        count, cells = phase(index)
        batch = batches.make(dice, world.dev_scene, (tokenizers, encoder), count, cells)
        sigma = batches.sigmas(dice, count)
        noisy, wanted = noised(batch.latents, sigma, index)
        txt, vec = model.read(batch.words, batch.padding)
        given = (noisy, txt, vec, sigma, batch.guidance, batch.turn, batch.bias)
        made, middle, end = fast(*given)
        each = ((made - wanted) ** 2).mean(dim=-1) * batch.weight
        error = each.mean()
        outline, place = questions(middle, end, batch.painted)
        (error + (HINT if index < 0.8 * STEPS else 0.03) * (outline + place)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one in (*optimizers, asking):
            one.step()
            one.zero_grad()
        high = sigma > 0.75
        blind = each.detach()[high].mean().item() if high.any() else error.item()
        shown = {"error": error, "outline": outline, "place": place}
        return {"blind": blind} | {name: value.item() for name, value in shown.items()}

    def sketch(index: int) -> None:
        sample.sheet(model, tokenizers, encoder, folder / f"dev-{index}.webp")

    parts = {
        "model": model,
        "questions": questions,
        "asking": asking,
        **{f"optimizer{i}": one for i, one in enumerate(optimizers)},
    }
    loop.run(loop.Stage("dev", STEPS, parts, step, sketch, 1000), folder)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "dev.safetensors",
    )
