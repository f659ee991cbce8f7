"""The fields of a request: the one place that knows their names, types, defaults and ranges.

The parser, the widgets of the Inputs node, the JSON Schema, the README table and the page of
fields are all made from `FIELDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

ASPECT_RATIOS: Final = (
    "1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21",
)  # fmt: skip
CUSTOM: Final = "custom"
MODELS: Final = ("dev", "schnell")
MEGAPIXELS: Final = ("1", "0.25")
OUTPUT_FORMATS: Final = ("webp", "jpg", "png")

SEED_MAX: Final = 2**64 - 1
"""Largest seed that torch's generators take."""

RANDOM_SEED_LIMIT: Final = 2**32
"""A seed that is drawn for the user lies in 0..2^32-1."""

GO_FAST_MULTIPLIER: Final = 1.5
"""What go_fast multiplies LoRA strengths by, as the schema says."""

GO_FAST_LORA: Final = ("hosted", "whole")
"""How much of that arrives: as on the hosted model, whose fp8 weights round a part away, or all."""


class Kind(str, Enum):
    """What a field holds."""

    STRING = "string"
    URI = "uri"
    ENUM = "enum"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


@dataclass(frozen=True)
class Field:
    """One field of a request.

    Attributes:
        name: the name in JSON and on the node.
        kind: what it holds.
        help: what it does here; shown as tooltip and in the docs.
        default: value when the field is absent or null; None means "not given".
        hosted: how the hosted model differs, "" where it does the same.
        aliases: other names that are accepted for it in JSON.
    """

    name: str
    kind: Kind
    help: str
    default: str | int | float | bool | None = None
    required: bool = False
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: tuple[str, ...] = ()
    hosted: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What the field accepts, as the end of an error message."""
        if self.kind is Kind.ENUM:
            return "choose one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        if self.kind is Kind.BOOLEAN:
            return "give true or false"
        if self.kind in (Kind.INTEGER, Kind.NUMBER):
            noun = "a whole number" if self.kind is Kind.INTEGER else "a number"
            return f"give {noun} from {self.minimum} to {self.maximum}"
        return "give text" if self.kind is Kind.STRING else "give a file name or a link, as text"


FIELDS: Final[tuple[Field, ...]] = (
    Field(
        "prompt",
        Kind.STRING,
        "What to draw. Put the LoRA's trigger word in it. Parentheses and weights are plain text.",
        required=True,
    ),
    Field(
        "image",
        Kind.URI,
        "Image to start from: a file in the input folder, a data: URI or an https link. It sets "
        "the size, so aspect_ratio, megapixels, width and height are ignored. The model runs in "
        "bf16.",
        hosted="Ignores the EXIF rotation and drops alpha; here the image is turned upright and "
        "alpha is laid on white. Samples the VAE posterior; here its mode is taken.",
    ),
    Field(
        "mask",
        Kind.URI,
        "Mask of the image, given in the same way: white is repainted, black is kept. Without an "
        "image it is an error.",
        hosted="A mask without an image is silently ignored there; here it is an error.",
    ),
    Field(
        "aspect_ratio",
        Kind.ENUM,
        "Aspect ratio of the image. custom takes width and height instead, and runs in bf16.",
        default="1:1",
        choices=(*ASPECT_RATIOS, CUSTOM),
        hosted="custom without width or height fails with a bare TypeError there.",
    ),
    Field(
        "height",
        Kind.INTEGER,
        "Height in pixels when aspect_ratio is custom, rounded to the nearest multiple of 16.",
        minimum=256,
        maximum=1440,
        hosted="Rounds up to the next multiple of 16.",
    ),
    Field(
        "width",
        Kind.INTEGER,
        "Width in pixels when aspect_ratio is custom, rounded to the nearest multiple of 16.",
        minimum=256,
        maximum=1440,
        hosted="Rounds up to the next multiple of 16.",
    ),
    Field(
        "prompt_strength",
        Kind.NUMBER,
        "With an image: how much of it is repainted. 1 keeps nothing of it but the size, "
        "0 gives it back after a pass through the VAE.",
        default=0.8,
        minimum=0,
        maximum=1,
        hosted="0 is an error there.",
    ),
    Field(
        "model",
        Kind.ENUM,
        "dev is at its best around 28 steps, schnell needs only 4 and ignores guidance_scale.",
        default="dev",
        choices=MODELS,
    ),
    Field(
        "num_outputs",
        Kind.INTEGER,
        "Number of images, drawn as one batch from one seed.",
        default=1,
        minimum=1,
        maximum=4,
    ),
    Field(
        "num_inference_steps",
        Kind.INTEGER,
        "Denoising steps of the whole schedule; with an image, prompt_strength skips some.",
        default=28,
        minimum=1,
        maximum=50,
    ),
    Field(
        "guidance_scale",
        Kind.NUMBER,
        "Distilled guidance of dev; try 2, 2.5, 3 and 3.5.",
        default=3,
        minimum=0,
        maximum=10,
    ),
    Field(
        "seed",
        Kind.INTEGER,
        "The same seed draws the same image. Left out, a random one from 0 to 4294967295 is used "
        "and reported.",
        minimum=0,
        maximum=SEED_MAX,
        hosted="A negative seed is taken as random (bf16) or made positive (fp8); here it is an "
        "error. A random seed is only written to the log there.",
    ),
    Field(
        "output_format",
        Kind.ENUM,
        "File format of the images.",
        default="webp",
        choices=OUTPUT_FORMATS,
        hosted="Embeds no metadata; here the workflow is embedded unless ComfyUI runs with "
        "--disable-metadata.",
    ),
    Field(
        "output_quality",
        Kind.INTEGER,
        "Quality of webp and jpg, 100 is best. png ignores it.",
        default=80,
        minimum=0,
        maximum=100,
    ),
    Field(
        "disable_safety_checker",
        Kind.BOOLEAN,
        "Return the images unchecked.",
        default=False,
    ),
    Field(
        "go_fast",
        Kind.BOOLEAN,
        "Run the model in 8 bit. With a custom size or an image it runs in bf16 all the same.",
        default=True,
        hosted="Newer versions of the hosted model default to false.",
    ),
    Field(
        "megapixels",
        Kind.ENUM,
        "About how many megapixels; 0.25 halves both sides.",
        default="1",
        choices=MEGAPIXELS,
    ),
    Field(
        "lora",
        Kind.STRING,
        "The main LoRA: a Replicate model (owner/name), a Hugging Face or CivitAI link, any "
        ".safetensors link, or a file in the loras folder.",
        hosted="No such field: the hosted model is one fine-tune.",
        aliases=("replicate_weights", "lora_weights"),
    ),
    Field(
        "lora_scale",
        Kind.NUMBER,
        "Strength of the main LoRA, times 1.5 with go_fast.",
        default=1,
        minimum=-1,
        maximum=3,
        hosted="In bf16 a single LoRA's strength is squared by mistake.",
    ),
    Field(
        "extra_lora",
        Kind.STRING,
        "A second LoRA, named like the first.",
        hosted="Given alone it is ignored in bf16; here it is applied.",
    ),
    Field(
        "extra_lora_scale",
        Kind.NUMBER,
        "Strength of the second LoRA, times 1.5 with go_fast.",
        default=1,
        minimum=-1,
        maximum=3,
        hosted="Its code leaves the 1.5 out beside a main LoRA, against its own description.",
    ),
)

FIELD: Final[dict[str, Field]] = {field.name: field for field in FIELDS}
"""The same fields by name."""

FIELD_OF: Final = {name: field.name for field in FIELDS for name in (field.name, *field.aliases)}
"""Names of fields by every name that counts for them."""
