"""Train dev, and the text encoders with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from . import batches, flux, loop, optimizer, paint, sample, text, vae, world
from .model import Model, noised

LITTLE = 0.03
"""What the questions count once shapes are known."""


@dataclass(frozen=True)
class Course:
    """How long to train, and how fast.

    Attributes:
        steps: how many.
        rate: of learning, at its highest.
        fall: over which share of the steps, at the end, it goes down to nothing.
        hint: what the questions count in the first four fifths.
        denser: after which shares of the steps a step sees more cells of fewer pictures.
    """

    steps: int
    rate: float
    fall: float
    hint: float
    denser: tuple[float, float]


WHOLE = Course(15000, 2e-3, 0.4, 0.3, (0.7, 0.9))
"""From nothing."""

FURTHER = Course(4200, 2e-3, 0.9, LITTLE, (0.45, 0.7))
"""From weights that draw already."""


def phase(course: Course, index: int) -> batches.Parts:
    """What a step takes."""
    some, most = course.denser
    if index < some * course.steps:
        return batches.Parts(26, 128, 26)
    return batches.Parts(9, 400, 60) if index < most * course.steps else batches.Parts(4, 864, 80)


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


def train(
    folder: Path, tools: tuple[text.Tokenizers, vae.Encoder], known: Model | None = None
) -> Model:
    """Train, from nothing or from a `known` model."""
    torch.manual_seed(1)
    course, model = (FURTHER, known) if known else (WHOLE, Model(guidance=True))
    optimizers = optimizer.for_model([model], course.rate)
    questions = Questions()
    asking = torch.optim.AdamW(questions.parameters(), lr=2e-3, weight_decay=0.0)
    fast = torch.compile(model.flux, dynamic=False)

    def step(index: int) -> dict[str, float]:
        pace = loop.pace(index, course.steps, fall=course.fall)
        optimizer.set_rate(optimizers, course.rate * pace)
        dice = loop.dice(2, index)
        parts = phase(course, index)
        batch = batches.make(dice, world.dev_scene, tools, parts)
        sigma = batches.sigmas(dice, parts.pictures)
        noisy, wanted = noised(batch.latents, sigma, index)
        txt, vec = model.read(batch.words, batch.padding)
        given = (noisy, txt, vec, sigma, batch.guidance, batch.turn, batch.bias)
        with batches.quick():
            made, middle, end = (one.float() for one in fast(*given))
        each = ((made - wanted) ** 2).mean(dim=-1) * batch.weight
        error = each.mean()
        outline, place = questions(middle, end, batch.painted)
        hint = course.hint if index < 0.8 * course.steps else LITTLE
        (error + hint * (outline + place)).backward()
        optimizer.step([*optimizers, asking], model.parameters())
        high = sigma > 0.75
        blind = each.detach()[high].mean().item() if high.any() else error.item()
        shown = {"error": error, "outline": outline, "place": place}
        return {"blind": blind} | {name: value.item() for name, value in shown.items()}

    def sketch(index: int) -> None:
        sample.sheet(model, *tools, folder / f"dev-{index}.webp")

    kept = {
        "model": model,
        "questions": questions,
        "asking": asking,
        **optimizer.parts(optimizers),
    }
    loop.run(loop.Stage("dev", course.steps, kept, step, sketch, 1000), folder)
    return model


def save(model: Model, folder: Path) -> None:
    """Leave dev where the other stages find it."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "dev.safetensors")
