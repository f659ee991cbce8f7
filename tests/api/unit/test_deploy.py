"""The files for operators say what the code takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flux_hotswap.errors import SettingsError
from flux_hotswap.hosted_api.cluster.settings import (
    APP,
    ReplicaSettings,
    as_data,
    read_range,
    read_settings,
    settings_of,
)
from flux_hotswap.hosted_api.metrics import Metrics
from flux_hotswap.hosted_api.options import Options, read_options

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
TOKENS = ("HF_TOKEN", "CIVITAI_API_TOKEN")
"""That replicas fetch LoRAs with."""


def serve_config() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "serve.yaml").read_text(encoding="utf-8"))


def test_the_replicas_of_a_cluster() -> None:
    (app,) = serve_config()["applications"]
    settings = read_settings(app["args"])
    assert (app["name"], settings.comfyui) == (APP, "/opt/ComfyUI")
    assert app["runtime_env"]["env_vars"]["PYTHONPATH"].startswith(settings.comfyui)
    module, _, name = app["import_path"].partition(":")
    code = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")
    assert f"\ndef {name}(" in code


def test_kubernetes_has_the_same_replicas(tmp_path: Path) -> None:
    every = list(yaml.safe_load_all((DEPLOY / "rayservice.yaml").read_text(encoding="utf-8")))
    kinds = {each["kind"]: each for each in every}
    service = kinds["RayService"]["spec"]
    assert yaml.safe_load(service["serveConfigV2"]) == serve_config()
    wanted = (ROOT / "requirements-ray.txt").read_text(encoding="utf-8")
    assert f"ray[serve]=={service['rayClusterConfig']['rayVersion']}" in wanted
    groups = service["rayClusterConfig"]["workerGroupSpecs"]
    (app,) = serve_config()["applications"]
    assert groups[0]["maxReplicas"] == app["args"]["most"]
    assert service["rayClusterConfig"]["enableInTreeAutoscaling"] is True, "there would be one pod"
    api = kinds["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    # A full queue must not keep clients from what they have there.
    assert [api[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")] == [
        "/livez"
    ] * 2
    check_command(api["args"][0].partition("hosted_api ")[2].replace("'", "").split(), tmp_path)
    claims = {each["metadata"]["name"] for each in every if each["kind"].endswith("Claim")}
    used = set(re.findall(r"claimName: ([\w-]+)", (DEPLOY / "rayservice.yaml").read_text("utf-8")))
    assert used == claims


def test_kubernetes_lets_the_operator_in() -> None:
    """It deploys the replicas by Ray's dashboard, with the token that its pods have."""
    text = (DEPLOY / "rayservice.yaml").read_text(encoding="utf-8")
    kinds = {each["kind"]: each for each in yaml.safe_load_all(text)}
    secret = kinds["RayService"]["spec"]["rayClusterConfig"]["authOptions"]["secretName"]
    assert f"kubectl create secret generic {secret} --from-literal=auth_token=" in text
    used = set(re.findall(r"secretKeyRef: \{ (.+?) \}", text))
    fetching = {f"name: {secret}, key: {name}, optional: true" for name in TOKENS}
    assert used == {f"name: {secret}, key: auth_token"} | fetching
    rules = kinds["NetworkPolicy"]["spec"]["ingress"]
    (operator,) = [rule for rule in rules if "kuberay-operator" in str(rule)]
    assert operator["ports"] == [{"port": 8265}]


@pytest.mark.parametrize("name", [".dockerignore", ".gitignore"])
def test_secrets_stay_here(name: str) -> None:
    """The image is pushed to a registry, and the repository to a server."""
    told = (ROOT / name).read_text(encoding="utf-8").split()
    written = {each.removeprefix("**/").strip("/") for each in told}
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert composed["secrets"]["tokens"]["file"] in written
    assert str(Options().state) in written


@pytest.mark.parametrize("words", [["--ray-address", "auto"], ["--replicas", "2"], ["--idle", "9"]])
def test_what_is_for_a_cluster_wants_one(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(SettingsError, match=f"{words[0]} is for a cluster.*--workers ray"):
        read_options(["--start", str(tmp_path), *words])
    read_options(["--start", str(tmp_path), "--workers", "ray", *words])


def test_one_box(tmp_path: Path) -> None:
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    check_command(composed["services"]["api"]["command"], tmp_path)
    assert composed["services"]["api"]["environment"] == list(TOKENS)


def check_command(words: list[str], folder: Path) -> None:
    """What a file starts is taken by the command line, with its files where they are here."""
    tokens = folder / "tokens.txt"
    tokens.write_text("a-token-of-a-test\n", encoding="utf-8")
    (folder / "main.py").touch()
    files = {"--tokens": tokens, "--start": folder}
    given = (word.partition("=") for word in words)
    options = read_options([f"{name}={files.get(name, value)}" for name, _, value in given])
    assert (options.workers, options.host, len(options.tokens)) == ("ray", "0.0.0.0", 1)  # noqa: S104
    assert options.start or options.ray_address
    assert options.public, "clients would be given addresses of 0.0.0.0"


def test_the_board_shows_what_is_counted() -> None:
    board = json.loads((DEPLOY / "dashboard.json").read_text(encoding="utf-8"))
    told = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"hotswap_\w+", told)}
    counted = {metric.name for metric in vars(Metrics()).values() if hasattr(metric, "name")}
    assert shown <= counted
    assert counted - shown == {"hotswap_stored_bytes_total"}


@pytest.mark.parametrize(
    ("text", "expected"), [("2", (2, 2)), ("0-8", (0, 8)), ("1-1", (1, 1))], ids=str
)
def test_ranges(text: str, expected: tuple[int, int]) -> None:
    assert read_range(text) == expected


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "2-x", "1.5"])
def test_no_ranges(text: str) -> None:
    with pytest.raises(SettingsError, match="--replicas"):
        read_range(text)


BAD = [
    pytest.param({}, "comfyui is missing", id="no ComfyUI"),
    pytest.param({"comfyui": "/c", "gpu": 1}, "gpu is no setting", id="a name that is none"),
    pytest.param({"comfyui": "/c", "most": "2"}, "most is '2'", id="a text for a number"),
    pytest.param({"comfyui": "/c", "most": True}, "most is True", id="a boolean for a number"),
    pytest.param({"comfyui": "/c", "arguments": "--cpu"}, "arguments is", id="a text for a list"),
    pytest.param({"comfyui": "/c", "least": 3, "most": 2}, "3 to 2", id="more than the most"),
    pytest.param({"comfyui": "/c", "most": 0, "least": 0}, "0 to 0", id="none at all"),
]


@pytest.mark.parametrize(("given", "words"), BAD)
def test_bad_settings(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        read_settings(given)


def test_settings_come_back_as_they_were() -> None:
    settings = ReplicaSettings(comfyui="/c", arguments=("--cpu",), least=0, most=4, gpus=0.5)
    assert read_settings(json.loads(json.dumps(as_data(settings)))) == settings


@pytest.mark.parametrize(
    ("words", "gpus", "expected"),
    [
        pytest.param([], 4.0, (1.0, 5.0, 4, 4), id="one on each GPU"),
        pytest.param([], 64.0, (1.0, 1.0, 64, 64), id="more GPUs than cores"),
        pytest.param([], 0.0, (0.0, 1.0, 1, 1), id="one without a GPU"),
        pytest.param(["--replicas", "0-2"], 8.0, (1.0, 11.0, 0, 2), id="a range"),
    ],
)
def test_settings_of_the_command_line(
    words: list[str], gpus: float, expected: tuple[float, float, int, int], tmp_path: Path
) -> None:
    (tmp_path / "main.py").touch()
    options = read_options(["--workers", "ray", "--start", str(tmp_path), *words])
    settings = settings_of(options, gpus, 22)
    assert (settings.gpus, settings.cpus, settings.least, settings.most) == expected


def test_one_comfyui_is_started_several_times(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(SettingsError, match="one --start"):
        settings_of(read_options(["--start", str(tmp_path)] * 2), 0.0)
