"""What the results of coverage, mutations, fuzzing and the soak say, as tables. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.tables import Report, Table, number

__all__ = ["branches", "drawing", "fuzz", "looks", "mutation", "shared_store", "soak"]


def branches(report: Report) -> Iterator[Table]:
    """Branch coverage."""
    rows = [
        ("branches", str(report["covered_branches"]), str(report["num_branches"])),
        ("lines", str(report["covered_lines"]), str(report["num_statements"])),
    ]
    yield Table(rows, ("what", "run by the tests", "of"), f"{report['files']} files, goal: all")


def fuzz(report: Report) -> Iterator[Table]:
    """Inputs of the fuzzer."""
    rows = [
        (
            name.replace("_", " "),
            str(found["executions"]),
            str(found["seconds"]),
            str(len(found["findings"])),
        )
        for name, found in report["targets"].items()
    ]
    title = "What was found before has been mended and is kept as a test"
    yield Table(rows, ("reader", "inputs", "seconds", "findings left"), title)


def mutation(report: Report) -> Iterator[Table]:
    """Changes of the arithmetic that a test noticed, and those that none did."""
    rows = [
        (name, str(found["mutants"]), str(found["killed"]), str(len(found["survived"])))
        for name, found in report["files"].items()
    ]
    yield Table(rows, ("file", "changes", "noticed by a test", "not"))
    reasons = [
        (name, change, reason)
        for name, found in report["files"].items()
        for change, reason in found["survived"].items()
    ]
    if reasons:
        yield Table(reasons, ("file", "change", "why no test notices it"), "Survivors")


def shared_store(report: Report) -> Iterator[Table]:
    """One store of LoRAs at two mounts of a drive."""
    rows = [
        (
            kind,
            f"{found['at_once']['downloads']} for {found['at_once']['processes']} processes",
            f"{found['killed']['seconds_after_the_kill']} s",
            f"{found['index']['entries']} of {found['index']['fetched']}",
            str(max(part["forgotten"] for part in trials(found))),
            str(sum(part["missing"] for part in trials(found))),
            str(sum(part["broken"] + part.get("wrong", 0) for part in trials(found))),
            str(sum(len(part["errors"]) for part in trials(found))),
        )
        for kind, found in report["drives"].items()
    ]
    heads = (
        *("drive", "downloads of one LoRA", "done after a kill", "entries kept"),
        *("files forgotten", "known, not there", "broken files", "errors"),
    )
    yield Table(rows, heads, "Two mounts of each, three processes at either")


def trials(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what each trial found."""
    return [found[name] for name in ("at_once", "killed", "index", "eviction")]


def soak(report: Report) -> Iterator[Table]:
    """Hundreds of prompts on one server."""
    prompts = ", ".join(f"{count} {kind}" for kind, count in report["prompts"].items())
    outcomes = [(name, str(count)) for name, count in report["outcomes"].items()]
    yield Table(
        [*outcomes, ("problems", str(len(report["problems"])))], ("outcome", "count"), prompts
    )
    rows = [
        (name, *(number(report["trend"][key][end]) for end in ENDS))
        for key, name in MEASURED.items()
    ]
    heads = ("of the server", "first quarter after the warm-up", "last quarter", "per 100 prompts")
    yield Table(rows, heads)


MEASURED = {"memory_mb": "memory, MB", "open_files": "open files", "threads": "threads"}
ENDS = ("first_quarter", "last_quarter", "per_100_prompts")


def drawing(report: Report) -> Iterator[Table]:
    """Whether the small FLUX draws what is asked."""
    rows = []
    for name, found in report["agreement"].items():
        parts = ", ".join(
            f"{things}: {right} of {count}" for things, (right, count) in found["by_things"].items()
        )
        share = f"{found['agree'] / found['prompts']:.1%}"
        more = (str(found["agree_and_in_place"]), str(found["textures"]))
        rows.append((name, str(found["prompts"]), str(found["agree"]), share, parts, *more))
    heads = ("model", "prompts", "agree", "share", "of them", "and in place", "texture as asked")
    yield Table(rows, heads, "Prompts that training never saw; goal: 97 %")
    files, batch = report["files"], report["batch"]
    yield Table(
        [
            ("trained files, packed in the repository", f"{files['packed_mb']} MB", "12 MB"),
            ("the same, unpacked", f"{files['unpacked_mb']} MB", ""),
            ("a batch of 4 at 4 steps", f"{batch['seconds_median']} s", "20 s"),
        ],
        ("what", "measured", "goal: at most"),
    )
    if "looks" in report["agreement"]["dev"]:
        yield from looks(report)
    yield from _drawing_parts(report)


LOOKS = {"edge": "edge, px", "rough": "roughness, px", "stray": "stray, per mille"}
OPEN = {"open": "of the lines open", "most_open": "at most"}


def looks(report: Report) -> Iterator[Table]:
    """How well things are drawn: by model, by size, by LoRA; what was measured of it."""
    rows = [
        (
            f"{name}, 512 x 512, {one['prompts']} prompts",
            *(number(one["looks"][part]) for part in LOOKS),
        )
        for name, one in report["agreement"].items()
    ]
    if "sizes" in report:
        count = report["sizes"]["prompts"]
        for name, sizes in report["sizes"]["looks"].items():
            worst = [max((one[part], size) for size, one in sizes.items()) for part in LOOKS]
            cells = [f"{number(value)} at {size}" for value, size in worst]
            rows.append((f"{name}, the worst of {len(sizes)} sizes, {count} prompts", *cells))
    heads = ("", *LOOKS.values())
    title = "Distance to the ideal edge; goal: 1.0 px, 0.7 px, 0.05 per mille; 1.5 times in a size"
    yield Table(rows, heads, title)
    if "styles" in report:
        yield styles(report["styles"])


def styles(found: Report) -> Table:
    """How well things are drawn with each LoRA, by route and scale."""
    parts = LOOKS | OPEN
    rows = [
        (
            style,
            str(one["prompts"]),
            route,
            scale,
            *(number(drawn[part]) if part in drawn else "" for part in parts),
        )
        for style, one in found.items()
        for route, scales in one["looks"].items()
        for scale, drawn in scales.items()
    ]
    heads = ("LoRA", "prompts", "route", "lora_scale", *parts.values())
    return Table(rows, heads, "With a LoRA; goal: an edge of 1.5 px, lines closed")


def _drawing_parts(report: Report) -> Iterator[Table]:
    fp8 = [
        (name, f"{found['median']} dB", str(len(found["dB"])))
        for name, found in report["fp8"].items()
    ]
    yield Table(fp8, ("go_fast", "PSNR to bf16, median", "prompts"))
    moved = report["lora_scale"]
    scales = list(next(iter(moved.values())))
    rows = [(style, *(number(found[scale]) for scale in scales)) for style, found in moved.items()]
    yield Table(rows, ("LoRA at scale", *scales), "How far a LoRA moves a picture (RMS of 0 .. 1)")
    image = report["image_to_image"]
    rows = [
        (strength, f"{found['dB']} dB", f"{found['agree']} of {image['pictures']}")
        for strength, found in image["by_strength"].items()
    ]
    yield Table(rows, ("prompt_strength", "PSNR to the input", "agree with the new prompt"))
    guidance = report["guidance"]
    rows = [
        (value, f"{agree} of {guidance['prompts']}") for value, agree in guidance["agree"].items()
    ]
    yield Table(rows, ("guidance", "agree"))
    inpaint = report["inpaint"]
    agree = f"{inpaint['agree']} of {inpaint['pictures']}"
    rows = [(agree, f"{inpaint['kept_dB']:.1f} dB", f"{inpaint['painted_dB']:.1f} dB")]
    yield Table(rows, ("inpainted pictures that agree", "PSNR outside the mask", "inside"))
