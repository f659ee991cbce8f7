"""FluxHotswapSave: pictures as webp, jpg or png files under ComfyUI's output folder."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io

from ..engine.models import FP8
from ..ops import metadata
from ..ops.hosted.step import in_eight_bit_steps
from ..ops.naming import DEFAULT_PREFIX, clean_prefix
from ..ops.save import Place, save_batch
from ..prediction.parameters import parameters
from ..prediction.record import assemble
from ..prediction.spec import FIELD
from .base import CATEGORY, aliases, field_input, told
from .before import keep_before
from .journal import HIDDEN, notes_before
from .wire import Prediction, request_input

logger = logging.getLogger(__name__)


class FluxHotswapSave(io.ComfyNode):
    """Encodes a batch and writes it to the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FluxHotswapSave",
            display_name="FLUX Hotswap Save",
            category=CATEGORY,
            **aliases("save image", "webp", "jpg", "jpeg", "export image"),
            description="Saves images as webp, jpg or png in the output folder, with the graph "
            "inside, and returns their addresses in batch order.",
            inputs=[
                io.Image.Input("images", tooltip="The images to save, as one batch."),
                request_input("format and quality"),
                field_input(
                    FIELD["output_format"],
                    tooltip="webp is lossy and small, jpg is lossy, png is lossless. Dropping the "
                    "file on the graph brings the graph back.",
                ),
                field_input(FIELD["output_quality"]),
                io.String.Input(
                    "filename_prefix",
                    default=DEFAULT_PREFIX,
                    optional=True,
                    tooltip="Start of the file names, with folders below the output folder: "
                    "portraits/%date:yyyy-MM-dd%/anna. Also %year% %month% %day% %hour% %minute% "
                    "%second% %width% %height% and %batch_num%.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "uris",
                    display_name="uris",
                    is_output_list=True,
                    tooltip="One file: URI for each image, in batch order.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="The files with their sizes, and warnings.",
                ),
            ],
            hidden=[*HIDDEN, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        request: Prediction | None = None,
        output_format: Any = "webp",
        output_quality: int = 80,
        filename_prefix: str = DEFAULT_PREFIX,
    ) -> io.NodeOutput:
        """Save the batch; show the files in the node, in the history and under `/view`."""
        if request is not None:
            output_format = request.plan.output_format
            output_quality = request.plan.output_quality
        record = assemble(notes_before(cls), images.shape[2], images.shape[1], len(images))
        asked = record.pop("request", None)  # for the editor: the file has the graph
        if record.get("engine") == FP8:
            images = in_eight_bit_steps(images)
        prefix = clean_prefix(filename_prefix, datetime.now().astimezone())
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory(), images.shape[2], images.shape[1]
        )
        saved = save_batch(
            images,
            output_format,
            output_quality,
            texts=cls._texts(record),
            place=Place(Path(folder), filename, counter, subfolder),
        )
        logger.info("%s", saved.report)
        before = keep_before(request) if request is not None else None
        ui = {
            "images": saved.images,
            "flux_hotswap": told(record),
            # Each key in each call: of a list, ComfyUI joins the calls by the keys of the first.
            "flux_hotswap_request": [] if asked is None else told(asked),
            "flux_hotswap_before": [] if before is None else told(before),
        }
        return io.NodeOutput(saved.uris, saved.report, ui=ui)

    @classmethod
    def _texts(cls, record: dict[str, Any]) -> metadata.Texts:
        if args.disable_metadata:
            return metadata.Texts()
        graph = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
        graph["flux_hotswap"] = record
        kept = {key: value for key, value in graph.items() if value is not None}
        return metadata.pack(kept, parameters=parameters(record), home=_home())


def _home() -> str:
    """Return the user's home folder, empty for a user who has none, as in a container."""
    try:
        return str(Path.home())
    except RuntimeError:
        return ""
