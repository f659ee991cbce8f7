"""Training on the states that a model reaches itself."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from mini_flux.learn import batches, text, walk, world
from mini_flux.learn.model import noised

PICTURE, NOISE = torch.randn(2, 6, 5, 64, generator=torch.Generator().manual_seed(0))


def to_the_picture(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The velocity of a model that knows the picture."""
    return (x - PICTURE) / sigma[:, None, None]


def test_a_model_that_knows_the_picture_arrives_on_the_straight_line() -> None:
    way = walk.levels(random.Random(1), torch.full((6,), 3.0))
    begin, end = way[0][:, None, None], way[-1][:, None, None]
    assert (begin > end).any()
    x = walk.arrive(to_the_picture, PICTURE + begin * (NOISE - PICTURE), way)
    assert torch.allclose(x, PICTURE + end * (NOISE - PICTURE), atol=1e-5)


def some(
    tokenizers: text.Tokenizers,
    scene: Callable[[random.Random], world.Scene] = world.training_scene,
    unstyled: float = 0.0,
) -> batches.Batch:
    encoder = torch.randn(16, 192, generator=torch.Generator().manual_seed(1)), torch.zeros(16)
    parts, dice = batches.Parts(6, 8, 2), random.Random(3)
    return batches.make(dice, scene, (tokenizers, encoder), parts, unstyled=unstyled)


def test_what_is_wanted_leads_to_the_pictures(tokenizers: text.Tokenizers) -> None:
    batch = some(tokenizers)

    def right(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return (x - batch.latents) / sigma[:, None, None]

    assert walk.error(right, batch, random.Random(4), 5) < 1e-6
    assert walk.error(lambda x, sigma: right(x, sigma) + 1, batch, random.Random(4), 5) > 0.5


def test_only_the_last_state_is_learned_from(tokenizers: text.Tokenizers) -> None:
    batch, calls = some(tokenizers), []
    bias = torch.zeros((), requires_grad=True)

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append((torch.is_grad_enabled(), sigma))
        return x + bias

    way = walk.levels(random.Random(4), batch.guidance)
    walk.error(velocity, batch, random.Random(4), 5).backward()
    assert [learns for learns, _ in calls] == [False, False, True]
    assert torch.equal(torch.stack([sigma for _, sigma in calls]), way)
    assert bias.grad is not None


def test_some_ways_begin_without_the_style(tokenizers: text.Tokenizers) -> None:
    def sticker(dice: random.Random) -> world.Scene:
        return world.in_style(world.training_scene(dice), "sticker")

    plain = some(tokenizers)
    assert torch.equal(plain.before, plain.latents)
    batch = some(tokenizers, sticker, unstyled=1.0)
    assert torch.equal(batch.before, plain.latents)
    assert not torch.equal(batch.before, batch.latents)
    seen: list[torch.Tensor] = []

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return (x - batch.latents) / sigma[:, None, None]

    # Wherever it begins, the way leads to the picture in its style.
    assert walk.error(velocity, batch, random.Random(4), 5) < 1e-6
    way = walk.levels(random.Random(4), batch.guidance)
    walked = way[0] > way[-1]
    assert walked.any()
    assert not walked.all()
    begun = [noised(one, way[0], 5)[0] for one in (batch.before, batch.latents)]
    assert torch.equal(seen[0][walked], begun[0][walked])
    assert torch.equal(seen[0][~walked], begun[1][~walked])


def test_without_a_share_a_state_is_a_picture_with_noise(tokenizers: text.Tokenizers) -> None:
    batch, seen = some(tokenizers), []

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append((x, sigma))
        return x

    walk.error(velocity, batch, random.Random(4), 5, share=0.0)
    ((x, sigma),) = seen
    assert torch.equal(x, noised(batch.latents, sigma, 5)[0])


def test_ways_go_down_and_only_where_the_prompt_is_obeyed() -> None:
    guidance = torch.tensor([3.0, 1.0]).repeat(500)
    way = walk.levels(random.Random(2), guidance)
    assert (way[:-1] >= way[1:]).all()
    walked = way[0] > way[-1]
    assert not walked[guidance < batches.OBEYED].any()
    assert 0.6 < walked[::2].float().mean() < 0.8
    assert way[-1][walked].min() >= walk.ENDED[0]


def test_an_error_of_the_state_counts_alike_below_the_even_level() -> None:
    way = torch.tensor([[0.9, 0.9, 0.9, 0.3], [0.1, 0.5, 0.8, 0.3]])
    counted = walk.weights(way) / way[-1] ** 2
    assert counted[:2].tolist() == [4.0, 4.0]
    assert walk.weights(way)[2:].tolist() == [1.0, 1.0]
