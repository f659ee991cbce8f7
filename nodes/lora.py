"""FluxHotswapLora: LoRAs from any source, fetched once and applied as ComfyUI does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..engine.loras import (
    Applied,
    apply_or_take,
    current_hash,
    get,
    merges,
    route_of,
    watch,
)
from ..engine.models import recent
from ..prediction.plan import Strengths, lora_of
from ..prediction.spec import FIELD, GO_FAST_LORA, GO_FAST_MULTIPLIER
from .base import CATEGORY, aliases, field_input, go_fast_inputs
from .journal import HIDDEN, note
from .wire import ABSENT, Prediction, request_input

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

log = logging.getLogger(__name__)


class FluxHotswapLora(io.ComfyNode):
    """Applies the LoRAs that a request names, or one of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FluxHotswapLora",
            display_name="FLUX Hotswap LoRA",
            category=CATEGORY,
            **aliases("lora loader", "download lora", "civitai", "hugging face", "replicate lora"),
            description="Fetches LoRAs from Replicate, Hugging Face, CivitAI, a link or the loras "
            "folder, and applies them.",
            inputs=[
                io.Model.Input("model", tooltip="The FLUX.1 model that the LoRA is applied to."),
                request_input("which LoRAs are applied, in which order and how strongly"),
                field_input(
                    FIELD["lora"],
                    name="source",
                    tooltip="A Replicate model (owner/name), a Hugging Face or CivitAI link, any "
                    ".safetensors link, or a file in the loras folder. Empty: no LoRA.",
                ),
                field_input(
                    FIELD["lora_scale"],
                    name="scale",
                    tooltip="Strength of the LoRA. 0: no LoRA, nothing is fetched.",
                ),
                *go_fast_inputs(),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text encoders, for LoRAs that change them too.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "out_model", display_name="MODEL", tooltip="The model with the LoRA."
                ),
                io.Clip.Output(
                    "out_clip",
                    display_name="CLIP",
                    tooltip="The text encoders with the LoRA, if they are connected.",
                ),
                io.String.Output(
                    "out_report",
                    display_name="report",
                    tooltip="What was fetched, what of it was applied, and how strongly.",
                ),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def fingerprint_inputs(cls, request: object = ABSENT, source: str | None = "", **_: Any) -> str:
        """Run anew when a file that was applied is another one now; keep what was made before."""
        recent.hold()
        return watch.state(source if request is ABSENT else None, current_hash)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        request: Prediction | None = None,
        source: str = "",
        scale: float = 1.0,
        go_fast_multiplier: float = GO_FAST_MULTIPLIER,
        go_fast_lora: str = GO_FAST_LORA[0],
        clip: Any = None,
    ) -> io.NodeOutput:
        """Fetch and apply the LoRAs, or pass everything through."""
        route = route_of(model)
        warnings: list[str] = []
        if request is None:
            own = lora_of(source, scale, route, Strengths(go_fast_multiplier, go_fast_lora))
            loras, none = (own,) if source.strip() else (), "no LoRA: source is empty"
        else:
            loras, none = request.plan.loras, "no LoRA: the request names none"
            if loras and request.plan.route != route:
                warnings.append(
                    f"LoRA strengths are those of the {request.plan.route} route, and this MODEL "
                    f"runs in {route}: connect the request to the Loader too"
                )
        if loras and merges(model):
            loras = tuple(lora.merged for lora in loras)
        applied = [Applied(lora, get(lora)) for lora in loras if lora.strength]
        model, clip, fits = apply_or_take(applied, model, clip)
        lines = [entry.report(fit, clip) for entry, fit in zip(applied, fits, strict=True)]
        lines += [
            f"no LoRA: the strength is {lora.reckoning}" for lora in loras if not lora.strength
        ]
        lines += [f"warning: {warning}" for warning in warnings]
        report = "\n".join(lines or [none])
        log.info("LoRA: %s", report)
        pairs = list(zip(applied, fits, strict=True))
        warnings += [text for entry, fit in pairs for text in entry.warnings(fit, clip)]
        note(cls, loras=[entry.record(fit) for entry, fit in pairs], warnings=warnings)
        return io.NodeOutput(model, clip, report)
