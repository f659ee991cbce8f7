"""What the files of results say, as tables. Standard library only.

One function for each benchmark; a file of results without one is shown value by value.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]

HEADS = ("what", "ours", "peer", "ours / peer", "goal", "spread")


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        rows: each as long as `heads`.
        heads: the columns' names.
        title: what stands above it, if anything has to.
    """

    rows: Sequence[Sequence[str]]
    heads: Sequence[str] = HEADS
    title: str = ""


def seconds(value: float) -> str:
    """Return a time in the unit that suits it, with three digits."""
    return f"{number(value * 1e3)} ms" if value < 1 else f"{number(value)} s"


def number(value: float) -> str:
    """Return a number with three digits or all those before the point."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    digits = f"{value:#.3g}"
    return f"{float(digits):g}" if abs(value) < 0.001 else digits.rstrip(".")


def megabytes(value: float) -> str:
    """Return an amount of memory."""
    return f"{value:.0f} MB"


def extent(values: Sequence[float], show: Callable[[float], str] = seconds) -> str:
    """Return the smallest and the largest of all runs."""
    return f"{show(min(values))} .. {show(max(values))} in {len(values)} runs"


def duel(what: str, ours: Report, peer: Report, name: str, goal: str = "") -> tuple[str, ...]:
    """Return a row of two summaries; the spread is that of ours."""
    a, b = ours["seconds_median"], peer["seconds_median"]
    return (
        what,
        seconds(a),
        f"{seconds(b)} ({name})",
        number(a / b),
        goal,
        extent(ours["seconds"]),
    )


# --- one function a benchmark ---


def save(report: Report) -> Iterator[Table]:
    """Saving pictures."""
    names = {"pillow": "Pillow", "comfyui_save_image": "SaveImage"}
    rows = [
        (
            *duel(fmt, found["ours"], found[peer], name, "below 1"),
            number(found["ours"]["bytes"] / found[peer]["bytes"]),
        )
        for fmt, found in report["formats"].items()
        for peer, name in names.items()
        if peer in found
    ]
    title = f"Ours on {report['setup']['threads']} threads, the others one picture after the other"
    yield Table(rows, (*HEADS, "bytes, ours / peer"), title)


def fetch(report: Report) -> Iterator[Table]:
    """Downloads: throughput, so more is better."""
    rows: list[tuple[str, ...]] = []
    kinds = (
        ("open", "curl", "one open server", "at least 0.8"),
        ("https", "curl", "over https", ""),
        ("limited", "aria2c", "each connection limited", "at least 1.0"),
        ("tar", "file", "the same, in a tar as Replicate makes it", "at least 0.9"),
    )
    for kind, peer, what, goal in kinds:
        found = report[kind]
        if peer not in found:
            rows.append((what, "", f"{found['missing']} was not installed", "", goal, ""))
            continue
        a, b = (found[name]["mb_per_second"] for name in ("ours", peer))
        spread = extent(found["ours"]["seconds"])
        rows.append((what, f"{a:.0f} MB/s", f"{b:.0f} MB/s ({peer})", f"{a / b:.2f}", goal, spread))
    cut = report["resume"]["cut_and_resumed"]
    rows.append(duel("cut in the middle and resumed", cut, report["open"]["ours"], "ours, uncut"))
    hit = report["cache_hit"]
    spread = f"99 of 100 below {number(hit['milliseconds_of_99_percent'])} ms"
    middle = f"{number(hit['milliseconds_median'])} ms"
    rows.append(("a LoRA that is here already", middle, "", "", "", spread))
    yield Table(rows)


def lora(report: Report) -> Iterator[Table]:
    """Applying LoRAs in bf16."""
    titles = {"node": "the node alone", "weights": "until the weights are patched"}
    yield Table(
        [
            duel(
                f"{model}, {title}",
                found[what]["ours"],
                found[what]["comfyui"],
                "LoraLoaderModelOnly",
            )
            for model, found in report["models"].items()
            for what, title in titles.items()
        ]
    )


def int8_lora(report: Report) -> Iterator[Table]:
    """Applying LoRAs with go_fast."""
    steps = [key for key in report if key not in ("machine", "setup")]
    ways = {"ours": "", "ours, whole": ", go_fast_lora whole"}
    yield Table(
        [
            duel(step + way, report[step][ours], found, name)
            for step in steps
            for ours, way in ways.items()
            for name, found in report[step].items()
            if name not in ways
        ]
    )


def int8_load(report: Report) -> Iterator[Table]:
    """Loading with go_fast: time until ready, and peak memory."""
    rows: list[tuple[str, ...]] = []
    for way, found in report["medians"].items():
        spread = extent([run["ready"] for run in report["runs"][way]])
        peak = extent([run["peak"] for run in report["runs"][way]], megabytes)
        keys = ("our ready, first time", "our ready, from then on", "our peak, first time")
        shares = [f"{found[key]:.2f}" if key in found else "" for key in keys]
        rows.append((way, seconds(found["ready"]), spread, megabytes(found["peak"]), peak, *shares))
    model = report["medians"]["ours, first time"]["model"]
    most = megabytes(model + 1.5 * report["setup"]["largest_tensor_mb"])
    heads = (
        "what", "until ready", "spread", "peak memory", "spread", "ours / it, first time",
        "ours / it, from then on", "ours / its peak, first time",
    )  # fmt: skip
    goal = f"at most 1.2 of a file in e4m3 from then on, a peak of at most {most} the first time"
    yield Table(rows, heads=heads, title=f"Goal: {goal}")


def int8_error(report: Report) -> Iterator[Table]:
    """Errors of int8, and what of a LoRA arrives."""
    rows = [
        (what, number(errors["ours"]), f"{number(value)} ({peer})",
         f"{errors['ours'] / value:.2f}", "" if peer == "bf16" else "below 1", "")
        for kind in ("models", "layers")
        for what, errors in report[kind].items()
        for peer, value in errors.items()
        if value and not peer.startswith("ours")
    ]  # fmt: skip
    yield Table(rows, title="Relative error against float32; the same in every run")
    size = "rms of the weight's"
    ways = [key for key, value in report["loras"][0].items() if isinstance(value, Mapping)]
    arrived = [
        (
            f"{row[size]:g}, rank {row['rank']}",
            *(f"{row[way]['gain']:.3f}, noise {number(row[way]['noise'])}" for way in ways),
        )
        for row in report["loras"]
    ]
    title = "How much of a LoRA arrives: gain (goal in float32: 0.98 to 1.02) and noise"
    yield Table(arrived, heads=("size of its change", *ways), title=title)


def strength(report: Report) -> Iterator[Table]:
    """How strong a LoRA arrives."""
    rows = [
        (
            f"{row['size']:.2%}, {row['scale']:g}",
            f"{row['hosted']:.3f}",
            f"{row['ours']:.3f}",
            f"{row['ours'] / row['hosted']:.2f}",
            f"{row['whole']:.3f}",
            f"{row['whole'] / row['hosted']:.2f}",
        )
        for row in report["rows"]
    ]
    heads = ("size of the change, scale", "hosted", "ours", "ours / it", "whole", "whole / it")
    each = f"{report['one_layer']['seconds_median'] * 1e3:.0f} ms for a layer of 3072x3072"
    yield Table(rows, heads=heads, title=f"What arrives of a LoRA; computed in {each}")


def lora_families(report: Report) -> Iterator[Table]:
    """How exactly files are applied, and which are refused."""
    for part, title in (
        ("families", "The same LoRA in every spelling"),
        ("kinds", "Every kind"),
    ):
        rows = [(name, *_applied(row)) for name, row in report[part].items()]
        heads = ("file", "ours", "ComfyUI's loader", "ours / it", "arrives in int8", "noise")
        yield Table(rows, heads=heads, title=f"{title}: relative error of the change in bf16")
    refused = [
        (name, found["words"] or "", f"{found['peer_weights']} weights changed")
        for name, found in report["refused"].items()
    ]
    heads = ("file", "refused in these words", "ComfyUI's loader")
    yield Table(refused, heads=heads, title="Files of other models, and broken ones")


def _applied(row: Report) -> tuple[str, ...]:
    """Return the cells of a file; a ratio only where the peer changes all weights."""
    ours, peer, int8 = row["ours"], row["peer"], row["int8"]
    told = number(peer["error"]) if peer["weights"] else "nothing of it"
    ratio = f"{ours['error'] / peer['error']:.2f}"
    if peer["weights"] != row["of"]:
        ratio = "in part" if peer["weights"] else "nothing"
        told += f", {peer['weights']} of {row['of']} weights" if peer["weights"] else ""
    mine = number(ours["error"])
    if ours["weights"] != row["of"]:
        mine += f", {ours['weights']} of {row['of']} weights"
    return mine, told, ratio, f"{int8['gain']:.3f}", f"{int8['noise']:.3f}"


def traffic(report: Report) -> Iterator[Table]:
    """What a step moves and launches."""
    rows = [
        (name, f"{number(found['gigabytes'])} GB", str(found["launches"]))
        for name, found in report["ways"].items()
    ]
    share = report["with_lora"]
    rows.append(("with the LoRA, of that without", number(share["gigabytes"]),
                 number(share["launches"])))  # fmt: skip
    rows.append(("the least of any LoRA behind its layers", number(report["least"]), ""))
    title = f"Goal: a LoRA moves at most {report['setup']['most']} of the bytes without one"
    yield Table(rows, heads=("a step", "moved", "launches"), title=title)


def gpu_kit(report: Report) -> Iterator[Table]:
    """What a GPU measured, with what was predicted."""
    marks = {True: "yes", False: "no", None: ""}
    rows = [
        (entry["stage"], entry["what"], f"{entry['value']} {entry['unit']}".strip(),
         entry["predicted"], marks[entry["holds"]])
        for entry in report["measurements"]
    ]  # fmt: skip
    yield Table(rows, heads=("stage", "what", "measured", "predicted", "holds"))


# --- everything else ---


def values(report: Report) -> Iterator[Table]:
    """Every value of a file of results."""
    found = {key: value for key, value in report.items() if key not in ("machine", "setup")}
    yield Table(list(flat(found)), heads=("what", "value"))


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and values; many numbers in a row as their extent."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name}, {key}" if name else str(key))
    elif isinstance(value, list) and value and all(isinstance(x, int | float) for x in value):
        first, last = number(value[0]), number(value[-1])
        low, high = number(min(value)), number(max(value))
        yield (
            name,
            f"first {first}, last {last}, {low} .. {high}, median "
            + number(statistics.median(value)),
        )
    elif isinstance(value, list):
        for index, inner in enumerate(value, 1):
            yield from flat(inner, f"{name} {index}")
    elif isinstance(value, float):
        yield name, number(value)
    else:
        yield name, str(value)
