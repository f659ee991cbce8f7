"""Random requests for bench/soak.py, valid and invalid, all drawn from one seed."""

from __future__ import annotations

import base64
import io
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

from fetch.servers import Server
from mini_flux import loras
from PIL import Image
from runtime.client import Client
from soak_strangers import Strange

from flux_hotswap.prediction.fill import INPUTS_CLASS, fill_prompt
from flux_hotswap.prediction.spec import FIELD, FIELDS, Kind

__all__ = ["Case", "Requests"]

WORKFLOW = ROOT / "workflows" / "api" / "flux_lora_schema.json"
PICTURES = {"wide.png": (200, 90), "tall.jpg": (60, 130), "tiny.webp": (3, 5), "grey.gif": (64, 48)}
MASKS = {"mask.png": (32, 32), "mask.webp": (200, 90)}
WORDS = ("a", "cat", "TOK", "(lamp:1.3)", "café", "in", "海", "rain,", "\\", "{x|y}", "\n", "🦊")
STRANGE = 0.3
"""Share of the valid requests that hold something as people paste it."""

BAD_LORAS = (
    "two words and more",
    "hf:",
    "owner/name/of/what",
    "model.ckpt",
    "not-here.safetensors",
    "x" * 300 + ".safetensors",
    "https://127.0.0.2/a.safetensors",
    "http://example.invalid/a.safetensors",
    "urn:air:sdxl:checkpoint:civitai:1@2",
    "data:;base64,%%%",
)


@dataclass(frozen=True)
class Case:
    """One prompt for the server.

    Attributes:
        prompt: as the API takes it.
        outputs: how many files a valid one gives.
        kind: their format, as Pillow calls it.
        names: an error names one of these; empty for a valid one.
    """

    prompt: dict[str, Any]
    outputs: int = 0
    kind: str = ""
    names: tuple[str, ...] = ()


class Requests:
    """Draws requests, and serves what they name.

    Args:
        seed: decides every draw.
        client: of the server that gets the pictures.
        models: its models folder.
    """

    def __init__(self, seed: int, client: Client, models: Path) -> None:
        self.random = random.Random(seed)
        self.web = Server()
        self._loras = models / "loras"
        self._workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
        self._links: list[str] = []
        self._made = 0
        # The picture routes are the cheap ones: theirs are small.
        self._routes = (
            *(self._custom, self._preset),
            *(self._from_picture, self._inpaint) * 3,
        )
        for name, size in (PICTURES | MASKS).items():
            data = _picture(self.random, size, name.rpartition(".")[2])
            client.upload(name, data)
            self.web.file(f"/{name}", data)
        self._loras.mkdir(exist_ok=True)
        mine = self._lora_bytes()
        self._lora_size = len(mine)
        (self._loras / "mine.safetensors").write_bytes(mine)
        self._serve_what_is_wrong()
        self._strange = Strange(self.random, self.web, mine)

    # --- valid ---

    def valid(self, **fields: Any) -> Case:
        """Draw a request that gives files; `fields` are set as they are."""
        draw = self.random
        request: dict[str, Any] = {
            "prompt": " ".join(draw.choices(WORDS, k=draw.randint(0, 12))),
            "model": draw.choice(("dev", "schnell")),
            "num_inference_steps": draw.randint(1, 2),
            "num_outputs": draw.choice((1, 1, 1, 1, 2, 3)),
            "guidance_scale": round(draw.uniform(0, 10), 2),
            "output_format": draw.choice(FIELD["output_format"].choices),
            "output_quality": draw.randint(0, 100),
            "go_fast": draw.random() < 0.6,
            "disable_safety_checker": draw.random() < 0.7,
            "seed": draw.choice((None, draw.randrange(2**64))),
            **draw.choice(self._routes)(),
            **self._loras_of_a_request(),
            **(self._strange.valid() if draw.random() < STRANGE else {}),
            **fields,
        }
        kind = {"webp": "WEBP", "jpg": "JPEG", "png": "PNG"}[request["output_format"]]
        return Case(fill_prompt(self._workflow, request), request["num_outputs"], kind)

    def _custom(self) -> dict[str, Any]:
        sides = (self.random.randint(256, 300) for _ in range(2))
        return {"aspect_ratio": "custom", **dict(zip(("width", "height"), sides, strict=True))}

    def _preset(self) -> dict[str, Any]:
        ratios = [ratio for ratio in FIELD["aspect_ratio"].choices if ratio != "custom"]
        ratio = self.random.choice(ratios)
        return {"aspect_ratio": ratio, "megapixels": "0.25", "num_inference_steps": 1}

    def _from_picture(self) -> dict[str, Any]:
        strength = round(self.random.uniform(0, 1), 2)
        return {"image": self._named(list(PICTURES)), "prompt_strength": strength}

    def _inpaint(self) -> dict[str, Any]:
        return {**self._from_picture(), "mask": self._named(list(MASKS))}

    def _named(self, names: list[str]) -> str:
        """A picture, named in one of the three ways."""
        name = self.random.choice(names)
        data = self.web.routes[f"/{name}"].data  # pyright: ignore[reportFunctionMemberAccess]
        uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        return self.random.choice((name, name, uri, f"{self.web.url}/{name}"))

    # --- LoRAs ---

    def _loras_of_a_request(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in ("lora", "extra_lora"):
            if self.random.random() < 0.35:
                found[name] = self._any_lora()
                found[f"{name}_scale"] = round(self.random.uniform(-1, 3), 2)
        return found

    def _any_lora(self) -> str:
        if self._links and self.random.random() < 0.5:
            return self.random.choice([*self._links, "mine.safetensors"])
        size = self._lora_size
        faults: tuple[dict[str, Any], ...] = (
            {},
            {"cut": [self.random.randrange(size)]},
            {"cut": [self.random.randrange(size) for _ in range(2)]},
            {"cut": [self.random.randrange(size)], "ranges": False},
            {"statuses": [(503, {"retry_after": "0"})]},
            {"rate": 4e6},
        )
        return self.new_lora(**self.random.choice(faults))

    def new_lora(self, **faults: Any) -> str:
        """Serve a LoRA that was never there before; its link."""
        self._made += 1
        path = f"/lora-{self._made}.safetensors"
        self._links = [*self._links[-20:], self.web.file(path, self._lora_bytes(), **faults)]
        return self._links[-1]

    def _lora_bytes(self) -> bytes:
        """A LoRA for the small FLUX; each has a content of its own."""
        state = loras.diffusers(loras.blocks(seed=self._made + 1))
        return loras.as_bytes(state)

    # --- invalid ---

    def invalid(self) -> Case:
        """Draw a request that must be refused."""
        ways: tuple[Callable[[], Case], ...] = (
            self._wrong_value,
            self._wrong_value,
            self._wrong_picture,
            self._wrong_lora,
            self._wrong_combination,
            self._wrong_by_strangers,
            self._wrong_by_strangers,
        )
        return self.random.choice(ways)()

    def _changed(self, *names: str, **values: Any) -> Case:
        """A small request with values that are set past all checks; None leaves an input out."""
        prompt = fill_prompt(self._workflow, {"prompt": "a", "num_inference_steps": 1, "seed": 1})
        inputs = next(x["inputs"] for x in prompt.values() if x["class_type"] == INPUTS_CLASS)
        inputs |= {"aspect_ratio": "custom", "width": 256, "height": 256, **values}
        for name in [name for name, value in values.items() if value is None]:
            del inputs[name]
        return Case(prompt, names=names)

    def _wrong_value(self) -> Case:
        field = self.random.choice(
            [x for x in FIELDS if x.kind in (Kind.ENUM, Kind.INTEGER, Kind.NUMBER)]
        )
        low, high = field.minimum, field.maximum
        values: list[Any] = ["", "many", [], {}, "1e999x"]
        if low is not None and high is not None:
            values += [low - 1, high + 1, low - 2**40, float("nan"), float("inf")]
        return self._changed(field.name, **{field.name: self.random.choice(values)})

    def _wrong_picture(self) -> Case:
        field = self.random.choice(("image", "mask"))
        wrong = self.random.choice((
            "not-here.png", "../../secret.png", "data:image/png;base64,@@", "data:nothing",
            f"{self.web.url}/not-here.png", f"{self.web.url}/page.png", "cut.png",
            "http://127.0.0.3/a.png", "x" * 300 + ".png",
        ))  # fmt: skip
        first = {"image": "wide.png"} if field == "mask" else {}
        return self._changed(field, **first, **{field: wrong})

    def _wrong_lora(self) -> Case:
        field = self.random.choice(("lora", "extra_lora"))
        web = self.web.url
        wrong = self.random.choice((
            *BAD_LORAS, f"{web}/gone.safetensors", f"{web}/page.safetensors",
            f"{web}/half.safetensors", f"{web}/misfit.safetensors",
            f"{web}/misfit.safetensors#sha256={'0' * 64}",
        ))  # fmt: skip
        # The node that refuses it is the LoRA node; its error names what the field holds.
        plain = wrong.partition("#")[0].rpartition("/")[2]
        plain = "data:" if wrong.startswith("data:") else plain
        return self._changed(
            field, wrong, plain, plain.removesuffix(".safetensors"), **{field: wrong}
        )

    def _wrong_by_strangers(self) -> Case:
        name, fields = self._strange.wrong()
        return self._changed(name, **fields)

    def _wrong_combination(self) -> Case:
        return self.random.choice((
            lambda: self._changed("width", width=None),
            lambda: self._changed("height", height=None),
            lambda: self._changed("mask", mask="mask.png"),
            lambda: self._changed("prompt", prompt=None),
        ))()  # fmt: skip

    def _serve_what_is_wrong(self) -> None:
        page = b"<!doctype html><html>log in</html>" + b" " * 600
        lora = self._lora_bytes()
        stranger = loras.as_bytes(
            {"model.layers.0.lora_A.weight": next(iter(loras.diffusers(loras.blocks()).values()))}
        )
        for name, wrong in {
            "/page.png": page,
            "/page.safetensors": page,
            "/half.safetensors": lora[: len(lora) // 2],
            "/misfit.safetensors": stranger,
        }.items():
            self.web.file(name, wrong)


def _picture(draw: random.Random, size: tuple[int, int], suffix: str) -> bytes:
    """A picture of random pixels."""
    image = Image.frombytes("L", size, draw.randbytes(size[0] * size[1]))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    return buffer.getvalue()
