"""The LoRA node in a real ComfyUI: sources, reports, refusals, caching, cancelling."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from fetch.servers import Server
from lora_probe import PROBE
from mini_flux import loras, shapes
from runtime.client import Client, ExecutionError, PromptRejectedError, Result
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer
from runtime.session import tracebacks

State = Mapping[str, torch.Tensor]

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "FLUX_HOTSWAP_ALLOW_HOSTS": "127.0.0.1",
    "FLUX_HOTSWAP_RECHECK_HOURS": "0",  # names that can move are looked up before every run
}
SMALL = loras.diffusers({name: loras.blocks()[name] for name in ("double_blocks.0.img_mlp.0",)})


@dataclass
class Site:
    """A ComfyUI that may fetch from a server on this machine."""

    server: ComfyServer
    client: Client
    web: Server

    def run(
        self,
        source: str,
        *,
        linked: bool = False,
        clip: bool = False,
        route: str = "",
        probe: bool = False,
        **inputs: Any,
    ) -> Ran:
        """Apply a LoRA to the small FLUX; nothing is drawn.

        `route` is what the MODEL says of its route; `probe` reports what TestSame sees instead.
        """
        files = {"dev_file": "flux1-dev.safetensors", "schnell_file": "flux1-schnell.safetensors"}
        prompt: dict[str, Any] = {
            "load": {"class_type": "FluxHotswapLoader", "inputs": {**files, "go_fast": False}},
            "lora": {
                "class_type": "FluxHotswapLora",
                "inputs": {"model": ["load", 0], "source": source, **inputs},
            },
            "show": {"class_type": "PreviewAny", "inputs": {"source": ["lora", 2]}},
        }
        if route:
            node = {"class_type": "TestRoute", "inputs": {"model": ["load", 0], "route": route}}
            prompt["route"] = node
            prompt["lora"]["inputs"]["model"] = ["route", 0]
        if probe:
            models = {"before": prompt["lora"]["inputs"]["model"], "after": ["lora", 0]}
            prompt["same"] = {"class_type": "TestSame", "inputs": models}
            prompt["show"]["inputs"]["source"] = ["same", 0]
        if linked:
            prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": source}}
            prompt["lora"]["inputs"]["source"] = ["text", 0]
        if clip:
            names = {"clip_name1": "clip_l.safetensors", "clip_name2": "t5xxl_fp16.safetensors"}
            node = {"class_type": "DualCLIPLoader", "inputs": {**names, "type": "flux"}}
            prompt["clip"] = node
            prompt["lora"]["inputs"]["clip"] = ["clip", 0]
        result = self.client.run(prompt)
        return Ran(result, result.shown("text")[0])

    def put(self, name: str, state: State, metadata: dict[str, str] | None = None) -> str:
        """Put a file into the loras folder; its name there."""
        loras.write(state, self.server.models_dir / "loras" / f"{name}.safetensors", metadata)
        return f"{name}.safetensors"

    def serve(self, name: str, state: State, **faults: Any) -> str:
        """Serve a file; its link."""
        return self.web.file(f"/{name}.safetensors", loras.as_bytes(state), **faults)


@dataclass
class Ran:
    result: Result
    report: str

    @property
    def nodes(self) -> set[str]:
        return set(self.result.executed_nodes)

    def line(self, start: str) -> str:
        return next(row for row in self.report.splitlines() if row.startswith(start))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base, web = tmp_path_factory.mktemp("lora-site"), Server()
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "probe.py").write_text(PROBE, encoding="utf-8")
    models = small_models()
    with ComfyServer(find_comfyui(), models=models, env=ENVIRONMENT, base=base) as server:
        yield Site(server, Client(server.url), web)
    web.close()


# --- nothing to do ---


@pytest.mark.parametrize(
    ("source", "scale", "reason"),
    [("", 1.0, "source is empty"), ("  ", 1.0, "source is empty"), ("a/b", 0.0, "strength is 0")],
)
def test_nothing_to_do_passes_through(site: Site, source: str, scale: float, reason: str) -> None:
    assert reason in site.run(source, scale=scale).report
    assert site.run(source, scale=scale, probe=True).report == "True 0 0 []"


# --- strength ---


@pytest.mark.parametrize(
    ("route", "inputs", "strength", "shown"),
    [
        ("", {"scale": 0.8}, 0.8, "0.8"),
        ("bf16", {"scale": -1.0}, -1.0, "-1"),
        ("fast", {"scale": 0.5}, 0.75, "0.75 (0.5 times 1.5 with go_fast)"),
        ("fast", {"scale": 2.0, "go_fast_multiplier": 2.0}, 4.0, "4 (2 times 2 with go_fast)"),
        ("fast", {"scale": 2.0, "go_fast_multiplier": 1.0}, 2.0, "2"),
    ],
)
def test_the_multiplier_is_for_go_fast_alone(
    site: Site, route: str, inputs: dict[str, Any], strength: float, shown: str
) -> None:
    name = site.put("small", SMALL)
    whole: dict[str, Any] = inputs | {"go_fast_lora": "whole"}
    assert site.run(name, route=route, **whole).line("strength") == f"strength: {shown}"
    probed = site.run(name, route=route, probe=True, **whole)
    assert probed.report == f"False 0 1 [{strength}]"
    hosted = site.run(name, route=route, **inputs).line("strength")
    assert hosted.startswith(f"strength: {shown}")
    assert ("arrives" in hosted) == (route == "fast")


# --- what is reported ---


def test_a_local_file_is_applied_and_reported(site: Site) -> None:
    state = loras.diffusers(loras.blocks())
    name = site.put("styles/mine", state, {"modelspec.trigger_phrase": "MY STYLE"})
    digest = hashlib.sha256((site.server.models_dir / "loras" / name).read_bytes()).hexdigest()
    ran = site.run(name, scale=0.5)
    assert ran.line("source") == f"source: {name}"
    assert digest[:12] in ran.line("file")
    assert f"{len(state)} of {len(state)} matched (diffusers)" in ran.line("keys")
    assert ran.line("strength") == "strength: 0.5"
    assert ran.line("trigger") == "trigger words: MY STYLE"


def test_a_data_uri_is_applied(site: Site) -> None:
    coded = base64.b64encode(loras.as_bytes(SMALL)).decode()
    ran = site.run(f"data:application/octet-stream;base64,{coded}")
    assert "2 of 2 matched" in ran.line("keys")


def test_what_does_not_match_is_named(site: Site) -> None:
    odd = "transformer.transformer_blocks.1.attn.to_x.lora_A.weight"
    name = site.put("odd", {**SMALL, odd: torch.zeros(4, 256)})
    ran = site.run(name)
    assert "2 of 3 matched" in ran.line("keys")
    assert ran.line("not matched") == f"not matched: {odd}"


def test_what_has_another_shape_is_named(site: Site) -> None:
    wide = loras.diffusers({"img_in": loras.Part(torch.zeros(4, 64), torch.zeros(3072, 4))})
    ran = site.run(site.put("wide", {**SMALL, **wide}))
    assert "img_in.weight (3072x64 instead of 256x64)" in ran.line("not applied")


def clip_lora(start: str, sides: tuple[str, str] = ("lora_A", "lora_B")) -> dict[str, torch.Tensor]:
    w = shapes.CLIP_WIDTH
    return {
        f"{start}.{sides[0]}.weight": torch.ones(4, w),
        f"{start}.{sides[1]}.weight": torch.ones(w, 4),
    }


@pytest.mark.parametrize(
    "text",
    [
        clip_lora("text_encoder.text_model.encoder.layers.0.self_attn.q_proj"),
        clip_lora("text_encoder.encoder.layers.1.self_attn.q_proj"),
        clip_lora(
            "lora_te1_text_model_encoder_layers_0_self_attn_k_proj", ("lora_down", "lora_up")
        ),
    ],
    ids=["diffusers", "diffusers, newer", "kohya"],
)
def test_text_encoders_need_clip(site: Site, text: dict[str, torch.Tensor]) -> None:
    name = site.put("text", {**SMALL, **text})
    without = site.run(name)
    assert without.line("text encoders") == ("text encoders: 2 keys left out, no CLIP is connected")
    ran = site.run(name, clip=True)
    assert ran.line("keys") == "keys: 4 of 4 matched (" + ("diffusers), 2 weights changed")


def test_t5_is_changed_too(site: Site) -> None:
    inner = shapes.T5_HEADS * shapes.T5_KV
    start = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
    state = {
        f"{start}.lora_A.weight": torch.ones(4, shapes.T5_WIDTH),
        f"{start}.lora_B.weight": torch.ones(inner, 4),
    }
    assert "2 of 2 matched" in site.run(site.put("t5", state), clip=True).line("keys")


# --- other adapters, as far as the core reads them ---

H = shapes.HIDDEN
Q = "lycoris_transformer_blocks_0_attn_to_q"
OTHERS: dict[str, dict[str, torch.Tensor]] = {
    "LoKr": {f"{Q}.lokr_w1": torch.ones(4, 4), f"{Q}.lokr_w2": torch.ones(H // 4, H // 4)},
    "LoHa": {
        f"lora_unet_double_blocks_0_img_attn_proj.hada_{name}": torch.ones(shape)
        for name, shape in {
            "w1_a": (H, 2), "w1_b": (2, H), "w2_a": (H, 2), "w2_b": (2, H)
        }.items()
    },
    "DoRA": {
        "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": torch.ones(4, H),
        "lora_unet_double_blocks_0_img_attn_proj.lora_up.weight": torch.ones(H, 4),
        "lora_unet_double_blocks_0_img_attn_proj.dora_scale": torch.ones(H, 1),
    },
}  # fmt: skip


@pytest.mark.parametrize("state", OTHERS.values(), ids=list(OTHERS))
def test_other_adapters_are_read(site: Site, state: dict[str, torch.Tensor]) -> None:
    ran = site.run(site.put("other", state))
    assert f"keys: {len(state)} of {len(state)} matched" in ran.line("keys")


# --- refusals ---


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"lora_unet_input_blocks_4_1_proj_in.lora_up.weight": torch.ones(1)}, "made for SDXL"),
        (
            {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": torch.ones(1)},
            "made for Stable Diffusion 1.x or 2.x",
        ),
        ({"abc.lora_A.weight": torch.ones(1)}, "of no known family"),
        (
            loras.diffusers({"img_in": loras.Part(torch.ones(4, 1), torch.ones(1, 4))}),
            "another size",
        ),
        (clip_lora("text_encoder.text_model.encoder.layers.0.mlp.fc1"), "connect clip"),
    ],
    ids=["SDXL", "SD 1.5", "unknown", "size", "text only"],
)
def test_a_file_that_does_not_fit_is_refused(
    site: Site, state: dict[str, torch.Tensor], words: str
) -> None:
    with pytest.raises(ExecutionError) as failed:
        site.run(site.put("bad", state))
    assert failed.value.exception_type.endswith("LoraError")
    assert words in failed.value.message


def test_a_source_that_means_nothing_is_refused_before_the_run(site: Site) -> None:
    with pytest.raises(PromptRejectedError, match="https"):
        site.run("ftp://example.com/a.safetensors")


def test_a_local_file_that_is_not_there_is_refused_before_the_run(site: Site) -> None:
    with pytest.raises(PromptRejectedError) as refused:
        site.run("not-there.safetensors")
    assert list(refused.value.node_errors) == ["lora"]
    (error,) = refused.value.node_errors["lora"]["errors"]
    assert error["extra_info"]["input_name"] == "source"
    why = error["extra_info"]["exception_message"]
    assert why.startswith("source: not-there.safetensors is not in the loras folders")


def test_the_fetchers_errors_arrive_as_they_are(site: Site) -> None:
    """A name that comes through a wire shows when the node runs."""
    with pytest.raises(ExecutionError) as failed:
        site.run("not-there.safetensors", linked=True)
    assert failed.value.node_type == "FluxHotswapLora"
    assert failed.value.message.startswith("source: not-there.safetensors: there is no such file")
    assert failed.value.exception_type.endswith("NotFoundError")


# --- fetching and caching ---


@pytest.mark.parametrize("fixed", [False, True], ids=["moving", "fixed"])
@pytest.mark.parametrize("linked", [False, True], ids=["widget", "linked"])
def test_a_second_run_fetches_and_runs_nothing(site: Site, linked: bool, fixed: bool) -> None:
    link = path = site.serve(f"second-{linked}-{fixed}", SMALL)
    if fixed:
        link += "#sha256=" + hashlib.sha256(loras.as_bytes(SMALL)).hexdigest()
    first = site.run(link, linked=linked)
    assert "lora" in first.nodes
    asked, fetched = requests(site, path), downloads(site, path)
    again = site.run(link, linked=linked)
    assert again.nodes == set()
    assert again.report == first.report
    other = site.run(link, linked=linked, scale=2.0)
    assert other.nodes == {"lora", "show"}
    assert downloads(site, path) == fetched
    if fixed:
        assert requests(site, path) == asked


@pytest.mark.parametrize("linked", [False, True], ids=["widget", "linked"])
def test_another_file_behind_a_link_is_noticed(site: Site, linked: bool) -> None:
    link = site.serve(f"moving-{linked}", SMALL)
    first = site.run(link, linked=linked)
    changed = {name: tensor + 1 for name, tensor in SMALL.items()}
    site.serve(f"moving-{linked}", changed, etags=['"two"'])
    second = site.run(link, linked=linked)
    assert second.nodes == {"lora", "show"}
    assert second.line("file") != first.line("file")
    assert site.run(link, linked=linked).nodes == set()


def test_a_local_file_that_changes_is_read_again(site: Site) -> None:
    name = site.put("edited", SMALL)
    site.run(name)
    site.put("edited", {key: tensor + 1 for key, tensor in SMALL.items()})
    assert site.run(name).nodes == {"lora", "show"}
    assert site.run(name).nodes == set()


def test_a_source_that_is_down_changes_nothing(site: Site) -> None:
    link = site.serve("down", SMALL)
    first = site.run(link)
    del site.web.routes["/down.safetensors"]
    again = site.run(link)
    assert (again.nodes, again.report) == (set(), first.report)


def test_cancelling_the_run_cancels_the_download(site: Site) -> None:
    big = {"transformer.proj_out.lora_A.weight": torch.zeros(4, 1 << 20)}
    link = site.serve("slow", big, rate=1 << 20)

    def cancel() -> None:
        while not downloads(site, link):
            time.sleep(0.02)  # until the download has begun
        site.client.interrupt()

    thread = threading.Thread(target=cancel)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(ExecutionError) as stopped:
        site.run(link)
    thread.join()
    assert stopped.value.interrupted
    assert time.monotonic() - begun < 10, "16 MB at 1 MB/s: the download went on"


def requests(site: Site, link: str) -> int:
    """How often a file was asked about."""
    return len(site.web.asked(link.removeprefix(site.web.url)))


def downloads(site: Site, link: str) -> int:
    """How often more than the state of a file was asked for."""
    asked = site.web.asked(link.removeprefix(site.web.url))
    return sum(seen.method == "GET" and seen.headers.get("range") != "bytes=0-0" for seen in asked)


def test_nothing_unexpected_is_in_the_log(site: Site) -> None:
    expected = ("LoraError", "NotFoundError")
    log = tracebacks(site.server.log_text())
    assert [block for block in log if not any(name in block for name in expected)] == []
