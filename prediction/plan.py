"""From a Request to a Plan: everything that is decided before anything runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ..errors import RequestError
from .request import Request
from .schedule import full_schedule, start_step
from .seed import fast_seed
from .sizes import Size, custom_size, image_size, preset_size
from .spec import CUSTOM, FIELD, GO_FAST_LORA, GO_FAST_MULTIPLIER

T5_LENGTH: Final = {"dev": 512, "schnell": 256}
"""Tokens the prompt is padded and cut to for T5."""

SCHNELL_STEPS: Final = 4

HOSTED, WHOLE = GO_FAST_LORA


@dataclass(frozen=True)
class Strengths:
    """What go_fast makes of the strengths of LoRAs.

    Attributes:
        multiplier: what they are multiplied by.
        arrival: how much of that arrives, see `Lora.arrival`.
    """

    multiplier: float = GO_FAST_MULTIPLIER
    arrival: str = HOSTED


@dataclass(frozen=True)
class Lora:
    """A LoRA as it is applied.

    Attributes:
        source: what the user wrote.
        scale: the strength that was asked for.
        strength: what multiplies (alpha / rank) * B @ A.
        multiplier: strength / scale; go_fast's.
        arrival: "hosted" where of the strength as much arrives as on the hosted model, whose fp8
            weights are rounded again after a LoRA is added; "whole" where all of it does.
        field: which field of a request names it, for messages.
    """

    source: str
    scale: float
    strength: float
    multiplier: float = 1.0
    arrival: str = WHOLE
    field: str = "source"

    @property
    def reckoning(self) -> str:
        """The strength, and how it came about."""
        if self.multiplier == 1:
            return f"{self.strength:g}"
        return f"{self.strength:g} ({self.scale:g} times {self.multiplier:g} with go_fast)"

    @property
    def merged(self) -> Lora:
        """The same as engine fp8 merges it: as the hosted code does, the extra LoRA times 1."""
        if self.field != "extra_lora" or self.arrival != HOSTED:
            return self
        return replace(self, strength=self.scale, multiplier=1.0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will run.

    Attributes:
        mode: "txt2img", "img2img" or "inpaint".
        route: "fast" or "bf16"; route_reason says why.
        steps: denoising steps that run, len(sigmas) - 1.
        start_step: steps of the full schedule that an input picture skips.
        sigmas: noise levels from the first step to the final 0.
        noise_seed: what the noise is drawn with; the fast route knows fewer seeds.
        noise_draw: which draw of that generator is the noise; an image uses the second (1).
        guidance: distilled guidance, None for schnell.
        t5_length: tokens for T5.
        safety_checker: whether pictures are checked.
        warnings: what was asked for and has no effect, or not the expected one.
    """

    model: str
    width: int
    height: int
    num_outputs: int
    mode: str
    route: str
    route_reason: str
    steps: int
    start_step: int
    sigmas: tuple[float, ...]
    seed: int
    noise_seed: int
    noise_draw: int
    guidance: float | None
    t5_length: int
    loras: tuple[Lora, ...]
    output_format: str
    output_quality: int
    safety_checker: bool
    warnings: tuple[str, ...]

    @property
    def size(self) -> Size:
        """The picture's size."""
        return Size(self.width, self.height)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)


def make_plan(
    request: Request,
    *,
    seed: int,
    image: tuple[int, int] | None = None,
    mask: bool = False,
    strengths: Strengths = Strengths(),
) -> Plan:
    """Plan a request. Pure: the caller draws the seed and measures the picture.

    Args:
        request: what was asked for.
        seed: the seed to use when the request names none, 0..2^32-1.
        image: width and height of the upright input picture in pixels, None without one.
        mask: whether a mask is given.
        strengths: what go_fast makes of LoRA strengths.

    Raises:
        RequestError: a mask without an image, or a custom size without width or height.
    """
    if mask and image is None:
        raise RequestError(
            "mask", request.mask, "give the image it belongs to, or leave it out", "needs an image"
        )
    size = _size(request, image)
    sigmas, skipped = sigmas_of(
        request.model,
        request.num_inference_steps,
        size,
        request.prompt_strength if image else None,
    )
    route, reason = _route(request, image is not None)
    seed = seed if request.seed is None else request.seed
    return Plan(
        model=request.model,
        width=size.width,
        height=size.height,
        num_outputs=request.num_outputs,
        mode=mode_of(image=image is not None, mask=mask),
        route=route,
        route_reason=reason,
        steps=len(sigmas) - 1,
        start_step=skipped,
        sigmas=sigmas,
        seed=seed,
        noise_seed=fast_seed(seed) if route == "fast" else seed,
        noise_draw=noise_draw(image=image is not None),
        guidance=guidance_of(request.model, request.guidance_scale),
        t5_length=T5_LENGTH[request.model],
        loras=_loras(request, route, strengths),
        output_format=request.output_format,
        output_quality=request.output_quality,
        safety_checker=not request.disable_safety_checker,
        warnings=tuple(_warnings(request, size, skipped if image else None)),
    )


# --- what is decided, one thing each: for a plan, and for a node that stands alone ---


def size_of(
    aspect_ratio: str,
    megapixels: str,
    width: int,
    height: int,
    image: tuple[int, int] | None = None,
) -> Size:
    """Return the picture's size.

    Args:
        aspect_ratio: of a preset, or custom.
        megapixels: of a preset.
        width: for custom, in pixels.
        height: for custom, in pixels.
        image: width and height of the input picture, which decides alone where there is one.
    """
    if image is not None:
        return image_size(*image)
    if aspect_ratio == CUSTOM:
        return custom_size(width, height)
    return preset_size(aspect_ratio, megapixels)


def sigmas_of(
    model: str, steps: int, size: Size, prompt_strength: float | None
) -> tuple[tuple[float, ...], int]:
    """Return the noise levels that run, and how many steps of the full schedule are skipped.

    Args:
        model: dev or schnell.
        steps: of the full schedule.
        size: of the picture.
        prompt_strength: how much of an input picture is repainted, None without one.
    """
    skipped = 0 if prompt_strength is None else start_step(steps, prompt_strength)
    return full_schedule(model, steps, size.tokens)[skipped:], skipped


def mode_of(*, image: bool, mask: bool) -> str:
    """Return what kind of run it is."""
    return "inpaint" if mask else "img2img" if image else "txt2img"


def noise_draw(*, image: bool) -> int:
    """Return which draw of the seed's generator is the noise.

    The hosted model spends the first draw on encoding the input picture, where there is one.
    """
    return int(image)


def guidance_of(model: str, guidance_scale: float) -> float | None:
    """Return the distilled guidance; schnell has none."""
    return None if model == "schnell" else guidance_scale


def lora_of(
    source: str, scale: float, route: str, strengths: Strengths, *, field: str = "source"
) -> Lora:
    """Return a LoRA as it is applied on a route; only go_fast multiplies, and loses a part."""
    if route != "fast":
        return Lora(source, scale, scale, field=field)
    factor = strengths.multiplier
    return Lora(source, scale, scale * factor, factor, strengths.arrival, field)


# --- a plan's parts ---


def _size(request: Request, image: tuple[int, int] | None) -> Size:
    custom = image is None and request.aspect_ratio == CUSTOM
    if custom and (request.width is None or request.height is None):
        missing = "width" if request.width is None else "height"
        raise RequestError(
            missing,
            None,
            "give both width and height, from 256 to 1440, or another aspect_ratio",
            "is missing, and aspect_ratio is custom",
        )
    sides = request.width or 0, request.height or 0
    return size_of(request.aspect_ratio, request.megapixels, *sides, image)


def _route(request: Request, has_image: bool) -> tuple[str, str]:
    if not request.go_fast:
        return "bf16", "go_fast off"
    if has_image:
        return "bf16", "image input"
    if request.aspect_ratio == CUSTOM:
        return "bf16", "custom size"
    return "fast", "go_fast"


def _loras(request: Request, route: str, strengths: Strengths) -> tuple[Lora, ...]:
    named = (
        ("lora", request.lora, request.lora_scale),
        ("extra_lora", request.extra_lora, request.extra_lora_scale),
    )
    return tuple(
        lora_of(source, scale, route, strengths, field=field)
        for field, source, scale in named
        if source
    )


def _warnings(request: Request, size: Size, skipped: int | None) -> list[str]:
    """Return what is to be told; `skipped` are the steps of an input picture, None without one."""
    found = _size_warnings(request, size) if skipped is None else _image_warnings(request, skipped)
    if request.model == "schnell" and request.num_inference_steps > SCHNELL_STEPS:
        found.append(
            f"num_inference_steps: schnell needs only {SCHNELL_STEPS} steps, "
            f"{request.num_inference_steps} run as asked"
        )
    return found


def _size_warnings(request: Request, size: Size) -> list[str]:
    asked = (request.width, request.height)
    if request.aspect_ratio != CUSTOM:
        named = [name for name, side in zip(("width", "height"), asked, strict=True) if side]
        return [f"{' and '.join(named)}: ignored, aspect_ratio is not custom"] if named else []
    found: list[str] = []
    if asked != size:
        found.append(f"width and height: {asked[0]}x{asked[1]} is rounded to {size}")
    if request.megapixels != FIELD["megapixels"].default:
        found.append("megapixels: ignored, aspect_ratio is custom")
    return found


def _image_warnings(request: Request, skipped: int) -> list[str]:
    shape = {
        "aspect_ratio": request.aspect_ratio,
        "megapixels": request.megapixels,
        "width": request.width,
        "height": request.height,
    }
    ignored = [name for name, value in shape.items() if value != FIELD[name].default]
    found = [f"{', '.join(ignored)}: ignored, the image sets the size"] if ignored else []
    if skipped == 0:
        found.append(
            f"prompt_strength: {request.prompt_strength:g} of {request.num_inference_steps} steps "
            "starts from pure noise, of the image only the size is used"
        )
    if skipped == request.num_inference_steps:
        found.append("prompt_strength: 0 runs no step, the image only passes through the VAE")
    return found
