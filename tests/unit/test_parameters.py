"""The text for other tools: read back by their rules, whatever stands in prompts and names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from flux_hotswap.prediction.parameters import parameters

SHA = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
RUN: dict[str, Any] = {
    "prompt": "a cat on a roof",
    "model": "dev",
    "checkpoint": "flux1-dev.safetensors",
    "engine": "int8",
    "loras": [{"source": "o/n", "file": "ink.safetensors", "sha256": SHA, "strength": 1.2}],
    "mode": "img2img",
    "width": 1024,
    "height": 768,
    "steps": 23,
    "start_step": 5,
    "prompt_strength": 0.8,
    "seed": 42,
    "guidance": 3.0,
    "version": "0.1.0",
}
PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def lora(file: str, sha256: str | None = SHA, strength: float | None = 1.0) -> dict[str, Any]:
    return {"source": "o/n", "file": file, "sha256": sha256, "strength": strength}


def read(text: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return prompt, pairs and hashes as A1111 finds them, the hashes' JSON as CivitAI does."""
    *lines, last = text.strip().split("\n")
    assert not any(line.strip().startswith("Negative prompt:") for line in lines)
    hashes: dict[str, str] = {}
    if ", Hashes: " in last:
        before, after = last.split(", Hashes: ", 1)
        hashes, end = json.JSONDecoder().raw_decode(after)
        last = before + after[end:]
    pairs = {key: json.loads(v) if v[:1] == '"' else v for key, v in PAIR.findall(last)}
    return "\n".join(lines), pairs, hashes


def read_anywhere(text: str) -> tuple[str, dict[str, float]]:
    """Return the pairs' line and the strengths as readers find them that look anywhere."""
    line = next((line for line in text.split("\n") if line.startswith("Steps: ")), "")
    assert text.count("Negative prompt:") == 0
    assert len(re.findall(r"Steps: ?\d", text, re.IGNORECASE)) == bool(line)
    tags = re.findall(r"<(?:lora|lyco|hypernet):([a-zA-Z0-9_.-]+):([0-9.]+)>", text)
    return line, {name: float(strength) for name, strength in tags}


def test_the_whole_text() -> None:
    assert parameters(RUN) == (
        "a cat on a roof\n"
        "<lora:ink:1.2>\n"
        "Steps: 28, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3, "
        "Seed: 42, Size: 1024x768, Model: flux1-dev, Denoising strength: 0.8, "
        'Lora hashes: "ink: 0123456789", Hashes: {"lora:ink": "0123456789"}, '
        "Version: flux-hotswap 0.1.0"
    )


def test_every_value_reads_back() -> None:
    prompt, pairs, hashes = read(parameters(RUN))
    assert prompt == "a cat on a roof\n<lora:ink:1.2>"
    assert pairs == {
        "Steps": "28",
        "Sampler": "Euler",
        "Schedule type": "Simple",
        "CFG scale": "1",
        "Distilled CFG Scale": "3",
        "Seed": "42",
        "Size": "1024x768",
        "Model": "flux1-dev",
        "Denoising strength": "0.8",
        "Lora hashes": "ink: 0123456789",
        "Version": "flux-hotswap 0.1.0",
    }
    assert hashes == {"lora:ink": "0123456789"}


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        pytest.param({"steps": 4, "start_step": None}, "Steps", "4", id="nothing skipped"),
        pytest.param({"steps": 0, "start_step": 28}, "Steps", "28", id="all skipped"),
        pytest.param({"steps": None}, "Steps", None, id="no steps"),
        pytest.param({"steps": None}, "Sampler", None, id="no steps, so who knows the sampler"),
        pytest.param({"guidance": None}, "Distilled CFG Scale", None, id="schnell"),
        pytest.param({"guidance": 3.5}, "Distilled CFG Scale", "3.5", id="guidance"),
        pytest.param({"guidance": 10}, "Distilled CFG Scale", "10", id="guidance, whole"),
        pytest.param({"seed": 0}, "Seed", "0", id="seed 0"),
        pytest.param({"seed": 2**64 - 1}, "Seed", "18446744073709551615", id="large seed"),
        pytest.param({"width": None}, "Size", None, id="half a size"),
        pytest.param({"mode": "txt2img"}, "Denoising strength", None, id="txt2img"),
        pytest.param({"mode": None}, "Denoising strength", None, id="no mode"),
        pytest.param({"mode": "inpaint"}, "Denoising strength", "0.8", id="inpaint"),
        pytest.param({"prompt_strength": None}, "Denoising strength", None, id="no strength"),
        pytest.param({"checkpoint": None}, "Model", "flux1-dev", id="model alone"),
        pytest.param({"checkpoint": None, "model": None}, "Model", None, id="no model"),
        pytest.param({"checkpoint": "a.b-v1.2.GGUF"}, "Model", "a.b-v1.2", id="dots in a name"),
        pytest.param({"checkpoint": "flux.1-dev"}, "Model", "flux.1-dev", id="no suffix"),
        pytest.param({"checkpoint": r"C:\m\b.sft"}, "Model", "b", id="folders"),
        pytest.param({"checkpoint": 'a, b: "c"\n.pt'}, "Model", "a_ b_ _c__", id="odd model"),
        pytest.param({"version": None}, "Version", "flux-hotswap", id="no version"),
        pytest.param({"version": '1, "2'}, "Version", "flux-hotswap 1_ _2", id="odd version"),
        pytest.param({"loras": None}, "Lora hashes", None, id="loras None"),
        pytest.param({"loras": []}, "Lora hashes", None, id="no loras"),
    ],
)
def test_values(changes: dict[str, Any], key: str, value: str | None) -> None:
    assert read(parameters(RUN | changes))[1].get(key) == value


FORGED = "Steps: 3, Sampler: DDIM, Seed: 7, Size: 8x8, Hashes: {}"


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        pytest.param("a (cat), [two] dogs", None, id="parentheses are literal"),
        pytest.param('"quoted, \\"twice\\"", {a: 1}', None, id="quotes and braces"),
        pytest.param("one\n\ntwo\r\nthree", None, id="line ends"),
        pytest.param("a café, 猫, 🐈", None, id="unicode"),
        pytest.param("key: a, other: b, third: c", None, id="pairs"),
        pytest.param("the steps of a temple, negative prompts", None, id="words alone"),
        pytest.param(FORGED, FORGED.replace("Steps:", "Steps :"), id="steps"),
        pytest.param(f"x\n{FORGED}", f"x\n{FORGED}".replace("s:", "s :", 1), id="steps, line 2"),
        pytest.param("x\n  Steps: 3", "x\n  Steps : 3", id="steps, indented"),
        pytest.param("cook, steps: 3.", "cook, steps : 3.", id="steps, inside"),
        pytest.param("x\nNegative prompt: ugly", "x\nNegative prompt : ugly", id="negative"),
        pytest.param("x Negative prompt: y", "x Negative prompt : y", id="negative, inside"),
        pytest.param("  negative prompt:y", "  negative prompt :y", id="negative, small"),
        pytest.param("x\nTemplate: y", "x\nTemplate : y", id="template"),
        pytest.param("<lora:ink:9> x", "<lora :ink:9> x", id="a tag of our lora"),
        pytest.param("<LORA:a:9><lyco:b:1>", "<LORA :a:9><lyco :b:1>", id="other tags"),
        pytest.param("<hypernet:a:1>", "<hypernet :a:1>", id="hypernet"),
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["steps known", "no steps"])
def test_prompts_forge_nothing(prompt: str, shown: str | None, known: bool) -> None:
    record = RUN if known else {**RUN, "steps": None}
    text = parameters({**record, "prompt": prompt})
    found, *rest = read(text)
    assert found == f"{shown or prompt}\n<lora:ink:1.2>".strip()
    assert rest == [*read(parameters(record))[1:]]
    line, strengths = read_anywhere(text)
    assert line == (text.split("\n")[-1] if known else "")
    assert strengths == {"ink": 1.2}


def test_a_prompt_alone_is_not_read_as_pairs() -> None:
    text = parameters({"prompt": "a: b, c: d, e: f"})
    assert text == "a: b, c: d, e: f\nVersion: flux-hotswap"
    assert len(PAIR.findall(text.split("\n")[-1])) < 3  # A1111 then takes it all as the prompt


@pytest.mark.parametrize(
    ("file", "name", "by_name"),
    [
        pytest.param("ink-v1.2_b.safetensors", "ink-v1.2_b", True, id="plain"),
        pytest.param("lora.tar.safetensors", "lora.tar", True, id="two suffixes"),
        pytest.param("/home/anna/ink.pt", "ink", True, id="folders"),
        pytest.param("a,b.safetensors", "a_b", True, id="comma"),
        pytest.param('a"b".safetensors', "a_b_", True, id="quotes"),
        pytest.param("a:b\\c:d.safetensors", "c_d", True, id="colon"),
        pytest.param("a\nSteps: 3\u2028.bin", "a_Steps_ 3_", False, id="line ends"),
        pytest.param("{a}[b]<c>.safetensors", "_a__b__c_", True, id="brackets"),
        pytest.param("my style (2).safetensors", "my style (2)", False, id="spaces"),
        pytest.param("水墨.safetensors", "水墨", False, id="unicode"),
        pytest.param("half\ud800.safetensors", "half_", True, id="half a character"),
        pytest.param(".safetensors", "lora", True, id="suffix only"),
        pytest.param("", "lora", True, id="no name"),
    ],
)
def test_names_of_loras(file: str, name: str, by_name: bool) -> None:
    text = parameters({**RUN, "loras": [lora(file, strength=0.5), lora("x.pt", OTHER)]})
    prompt, pairs, hashes = read(text)
    assert prompt.endswith(f"\n<lora:{name}:0.5> <lora:x:1>")
    assert hashes == {f"lora:{name}": SHA[:10], "lora:x": OTHER[:10]}
    named = dict(pair.split(": ") for pair in pairs["Lora hashes"].split(", "))
    assert named == ({name: SHA[:10]} if by_name else {}) | {"x": OTHER[:10]}
    assert read_anywhere(text)[1] == ({name: 0.5} if by_name else {}) | {"x": 1.0}


@pytest.mark.parametrize(
    ("strength", "tag", "named"),
    [
        pytest.param(1, "<lora:a:1>", True, id="whole"),
        pytest.param(0.8 * 1.5, "<lora:a:1.2>", True, id="rounded"),
        pytest.param(0.0, "<lora:a:0>", True, id="zero"),
        pytest.param(-0.00001, "<lora:a:0>", True, id="almost zero"),
        pytest.param(100.0, "<lora:a:100>", True, id="zeros stay"),
        pytest.param(-0.5, "<lora:a:-0.5>", False, id="negative"),
        pytest.param(None, "", False, id="unknown"),
    ],
)
def test_strengths(strength: float | None, tag: str, named: bool) -> None:
    """A name in `Lora hashes` whose tag CivitAI cannot read would be shown with strength 1."""
    prompt, pairs, hashes = read(parameters({**RUN, "loras": [lora("a.pt", SHA, strength)]}))
    assert prompt == f"a cat on a roof\n{tag}".strip()
    assert ("Lora hashes" in pairs) == named
    assert hashes == {"lora:a": SHA[:10]}


def test_files_of_one_name_stay_apart() -> None:
    loras = [lora("lora.safetensors", SHA, 1), lora("lora.safetensors", OTHER, 0.5)]
    prompt, pairs, hashes = read(parameters({**RUN, "loras": [*loras, loras[0]]}))
    assert prompt.endswith("\n<lora:lora:1> <lora:lora_2:0.5> <lora:lora:1>")
    assert pairs["Lora hashes"] == f"lora: {SHA[:10]}, lora_2: {OTHER[:10]}"
    assert hashes == {"lora:lora": SHA[:10], "lora:lora_2": OTHER[:10]}


@pytest.mark.parametrize("sha256", [None, ""])
def test_no_hash_is_made_up(sha256: str | None) -> None:
    text = parameters({**RUN, "loras": [lora("a.pt", sha256, 0.5)]})
    assert "ashes" not in text
    assert "<lora:a:0.5>" in text


def test_an_upper_case_hash() -> None:
    assert SHA[:10] in parameters({**RUN, "loras": [lora("a.pt", SHA.upper())]})


@pytest.mark.parametrize(
    "record",
    [
        pytest.param({}, id="empty"),
        pytest.param(dict.fromkeys(RUN), id="None everywhere"),
        pytest.param({"width": 8, "height": 8, "version": "1"}, id="a picture from anywhere"),
        pytest.param({"prompt": "", "loras": [], "num_outputs": 2}, id="empty values"),
    ],
)
def test_nothing_known_gives_no_text(record: dict[str, Any]) -> None:
    assert parameters(record) == ""


@pytest.mark.parametrize("key", sorted({*RUN} - {"engine"}))
def test_each_key_may_be_missing(key: str) -> None:
    without = {name: value for name, value in RUN.items() if name != key}
    assert parameters(without) == parameters({**RUN, key: None})
    assert read(parameters(without))[1]["Version"].startswith("flux-hotswap")


def test_no_prompt_starts_with_the_loras() -> None:
    assert parameters({**RUN, "prompt": " \n"}).startswith("<lora:ink:1.2>\nSteps: 28")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"prompt": 3}, id="prompt"),
        pytest.param({"seed": "42"}, id="seed, text"),
        pytest.param({"seed": 42.0}, id="seed, float"),
        pytest.param({"steps": True}, id="steps, bool"),
        pytest.param({"guidance": "3"}, id="guidance"),
        pytest.param({"prompt_strength": False}, id="strength, bool"),
        pytest.param({"loras": {}}, id="loras, mapping"),
        pytest.param({"loras": "ink"}, id="loras, text"),
        pytest.param({"loras": ["ink"]}, id="a lora, text"),
        pytest.param({"loras": [lora("a.pt") | {"strength": "1"}]}, id="a lora's strength"),
        pytest.param({"loras": [lora("a.pt") | {"file": 1}]}, id="a lora's file"),
    ],
)
def test_wrong_types_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="of the record is"):
        parameters({**RUN, **changes})


@pytest.mark.parametrize("sha256", ["abc", SHA[:-1] + "g", SHA + "0"])
def test_what_is_no_sha256_is_refused(sha256: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        parameters({**RUN, "loras": [lora("a.pt", sha256)]})


def test_the_record_is_not_modified() -> None:
    before = json.dumps(RUN)
    parameters(RUN)
    assert json.dumps(RUN) == before
