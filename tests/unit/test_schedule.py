"""Sigmas against diffusers' scheduler, and the step an input picture starts from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

from flux_hotswap.prediction.schedule import full_schedule, shift_exponent, start_step
from flux_hotswap.prediction.sizes import Size, custom_size, preset_size
from flux_hotswap.prediction.spec import ASPECT_RATIOS, MEGAPIXELS

STEPS = range(1, 51)
PRESET_SIZES = {
    f"{ratio} at {megapixels}": preset_size(ratio, megapixels)
    for ratio in ASPECT_RATIOS
    for megapixels in MEGAPIXELS
}


def custom_sizes(count: int) -> list[Size]:
    """Return count sizes drawn between the limits, the same ones every time."""
    draw = random.Random(20_251)
    return [custom_size(draw.randint(256, 1440), draw.randint(256, 1440)) for _ in range(count)]


def reference_sigmas(model: str, steps: int, tokens: int) -> list[float]:
    """Return the sigmas of diffusers' scheduler, set as its FluxPipeline sets it.

    The configurations are those in the model repositories of FLUX.1-dev and FLUX.1-schnell.
    """
    dev = model == "dev"
    scheduler: Any = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        use_dynamic_shifting=dev,
        shift=3.0 if dev else 1.0,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    config = scheduler.config
    slope = (config["max_shift"] - config["base_shift"]) / (
        config["max_image_seq_len"] - config["base_image_seq_len"]
    )
    mu = tokens * slope + config["base_shift"] - slope * config["base_image_seq_len"]
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu, device="cpu")
    return scheduler.sigmas.tolist()


def assert_like_reference(model: str, size: Size) -> None:
    for steps in STEPS:
        ours = full_schedule(model, steps, size.tokens)
        assert len(ours) == steps + 1
        assert list(ours) == pytest.approx(reference_sigmas(model, steps, size.tokens), abs=1e-6)
        assert ours[0] == 1
        assert ours[-1] == 0


@pytest.mark.parametrize("size", PRESET_SIZES.values(), ids=PRESET_SIZES)
def test_dev_preset(size: Size) -> None:
    assert_like_reference("dev", size)


@pytest.mark.parametrize("size", custom_sizes(50), ids=str)
def test_dev_custom_size(size: Size) -> None:
    assert_like_reference("dev", size)


@pytest.mark.parametrize("size", [Size(256, 256), Size(1024, 1024), Size(1440, 1440)], ids=str)
def test_schnell(size: Size) -> None:
    assert_like_reference("schnell", size)


@pytest.mark.parametrize(
    ("model", "steps", "tokens", "sigmas"),
    [
        ("dev", 1, 4096, [1, 0]),
        ("dev", 4, 4096, [1, 0.904531, 0.759511, 0.512844, 0]),
        ("dev", 4, 256, [1, 0.831824, 0.622459, 0.354661, 0]),
        (
            "dev",
            8,
            1024,
            [1, 0.929295, 0.849235, 0.757831, 0.652489, 0.529758, 0.384945, 0.2115, 0],
        ),
        (
            "dev",
            10,
            8100,
            [
                1, 0.98245, 0.96136, 0.935539, 0.903194, 0.861495, 0.805698, 0.7272, 0.608608,
                0.408671, 0,
            ],
        ),
        ("schnell", 1, 4096, [1, 0]),
        ("schnell", 4, 4096, [1, 0.75, 0.5, 0.25, 0]),
        ("schnell", 4, 256, [1, 0.75, 0.5, 0.25, 0]),
    ],
)  # fmt: skip
def test_recorded_sigmas(model: str, steps: int, tokens: int, sigmas: list[float]) -> None:
    assert list(full_schedule(model, steps, tokens)) == pytest.approx(sigmas, abs=1e-6)


@pytest.mark.parametrize(
    ("tokens", "mu"),
    [(256, 0.5), (4096, 1.15), (8100, 1.827760417), (1, 0.456835937), (1530, 0.715651042)],
)
def test_shift_exponent_is_a_line_without_ends(tokens: int, mu: float) -> None:
    assert shift_exponent(tokens) == pytest.approx(mu, abs=1e-8)


@pytest.mark.parametrize(
    ("steps", "strength", "start"),
    [
        (28, 1.0, 0), (28, 0.99, 0), (28, 0.97, 0), (28, 0.96, 1), (28, 0.9, 2), (28, 0.8, 5),
        (28, 0.75, 7), (28, 0.5, 14), (28, 0.35, 18), (28, 0.1, 25), (28, 0.04, 26),
        (28, 0.03, 27), (28, 0.01, 27), (28, 1e-9, 27), (28, 0, 28), (28, 0.0, 28),
        (1, 1e-9, 0), (1, 0.01, 0), (1, 1.0, 0), (1, 0, 1), (4, 0.8, 0), (4, 0.76, 0),
        (4, 0.75, 1), (4, 0.5, 2), (4, 0.25, 3), (4, 0.2, 3), (4, 0.1, 3), (50, 0.8, 10),
        (10, 0.9, 1),
    ],
)  # fmt: skip
def test_start_step(steps: int, strength: float, start: int) -> None:
    assert start_step(steps, strength) == start


@pytest.mark.parametrize(
    ("start", "sigma"),
    [
        (0, 1), (1, 0.988409), (2, 0.976222), (5, 0.935599), (7, 0.904531), (14, 0.759511),
        (18, 0.636964), (25, 0.274828), (26, 0.195455), (27, 0.104721),
    ],
)  # fmt: skip
def test_first_sigma_of_an_input_picture(start: int, sigma: float) -> None:
    assert full_schedule("dev", 28, 4096)[start] == pytest.approx(sigma, abs=1e-6)


def test_pairs_where_the_obvious_formula_is_one_step_off() -> None:
    """int((1 - s) * n) is what an older version did; float error sets it apart for these."""
    different = [
        (steps, hundredths)
        for steps in STEPS
        for hundredths in range(101)
        if start_step(steps, hundredths / 100) != int((1 - hundredths / 100) * steps)
    ]
    assert different == [
        (5, 80), (10, 80), (10, 90), (15, 80), (20, 80), (20, 90), (25, 68), (25, 80), (25, 92),
        (30, 80), (30, 90), (35, 80), (40, 80), (40, 90), (45, 80), (50, 34), (50, 68), (50, 78),
        (50, 80), (50, 90), (50, 92),
    ]  # fmt: skip


def test_start_step_stays_in_the_schedule() -> None:
    for steps in STEPS:
        starts = [start_step(steps, hundredths / 100) for hundredths in range(101)]
        assert starts[0] == steps
        assert starts[-1] == 0
        assert starts == sorted(starts, reverse=True)
