"""The tables of what it costs to use the pack. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.tables import Report, Table, extent, megabytes, number, seconds

WITHIN = "at most 1.03"
GROWN = ("steps", "pictures in a batch", "megapixels", "LoRAs")
STRAIGHT = 0.9
"""R2 from which a line says something."""
LEAST = 0.01
"""Seconds; nodes that take less on both sides share a row."""


def cost(report: Report) -> Iterator[Table]:
    """The start, a prompt, and growth, as far as they were measured."""
    if "start" in report:
        yield start(report["start"])
    if "prompt" in report:
        yield prompt(report["prompt"])
        yield nodes(report["prompt"]["nodes"])
    growth = report.get("growth", {})
    for what, found in growth.items():
        yield grown(what, found)
    missing = [name for name in ("start", "prompt") if name not in report]
    missing += [f"growth with {what}" for what in GROWN if what not in growth]
    if missing:
        yield Table([(", ".join(missing),)], heads=("not measured yet",))


def pair(
    what: str, found: Report, show: Callable[[float], str] = seconds, goal: str = ""
) -> tuple[str, ...]:
    """Return a row of both sides of a comparison; the spread is the ratio's quartiles."""
    low, high = found["of_stock_quartiles"]
    spread = f"{low:.2f} .. {high:.2f} in half of {len(found['runs']['ours'])} rounds"
    medians = found["median"]
    return (
        what, show(medians["ours"]), f"{show(medians['stock'])} (stock)",
        f"{found['of_stock']:.3f}", goal, spread,
    )  # fmt: skip


def start(found: Report) -> Table:
    """Return the table of fresh servers."""
    imported = found["import"]
    return Table(
        [
            ("import of the pack", seconds(imported["seconds_median"]), "", "", "",
             extent(imported["seconds"])),
            pair("until the server answers", found["start"]),
            pair("the same, wall-clock", found["start_wall"]),
            pair("its memory then", found["idle_mb"], megabytes),
            pair("the first prompt, which loads the models", found["first_prompt"], goal=WITHIN),
            pair("peak memory up to its end", found["peak_mb"], megabytes, WITHIN),
        ],
        title="Fresh servers, with the pack and without; processor time of the server",
    )  # fmt: skip


def prompt(found: Report) -> Table:
    """Return the table of later prompts."""
    again = found["again"]
    ran = again["nodes_that_run"]
    return Table(
        [
            pair("a prompt with another seed", found["whole"], goal=WITHIN),
            pair("the same, wall-clock", found["wall"]),
            against_usual(found),
            pair("its peak memory", found["peak_mb"], megabytes, WITHIN),
            ran_anew(found["nodes"]),
            pair("the check of the graph, wall-clock", again["check"]),
            pair("the same prompt again, wall-clock", again["whole"]),
            ("nodes that run then", str(ran["ours"]), f"{ran['stock']} (stock)", "", "none", ""),
        ],
        title="Later prompts; processor time of the server",
    )


def ran_anew(found: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Return the row of how many kinds of nodes another seed runs."""
    ours, stock = (str(len(found[side])) for side in ("ours", "stock"))
    return ("kinds of nodes that another seed runs", ours, f"{stock} (stock)", "", "", "")


def against_usual(found: Report) -> tuple[str, ...]:
    """Return the row of the stock graph without a longer text."""
    ours, usual = found["whole"], found["stock with 256 tokens"]
    a, b = ours["median"]["ours"], usual["seconds_median"]
    return (
        "a prompt with another seed, against half the text tokens",
        seconds(a), f"{seconds(b)} (stock, 256 tokens)",
        f"{a / b:.3f}", "", extent(ours["runs"]["ours"]),
    )  # fmt: skip


def nodes(found: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the table of where the time of a prompt goes."""
    rows: list[tuple[str, ...]] = []
    rest = {"ours": 0.0, "stock": 0.0}
    for kind in dict.fromkeys([*found["ours"], *found["stock"]]):
        pair_ = {side: found[side].get(kind) for side in ("ours", "stock")}
        if all((value or 0.0) < LEAST for value in pair_.values()):
            for side, value in pair_.items():
                rest[side] += value or 0.0
            continue
        rows.append((kind, *(cell(pair_[side]) for side in ("ours", "stock"))))
    rows.append(("all others", seconds(rest["ours"]), seconds(rest["stock"])))
    return Table(rows, heads=("node", "ours", "stock"), title="Where that time goes")


def cell(value: float | None) -> str:
    """Return a time, nothing for a node that did not run."""
    return "" if value is None else seconds(value)


def grown(what: str, found: Report) -> Table:
    """Return the table of a growth: a row for each value, then the straight lines."""
    rows: list[Sequence[str]] = []
    for index, value in enumerate(found["values"]):
        cells: list[Any] = [number(value) if value % 1 else f"{value:g}"]
        cells += [seconds(found["seconds"][side][index]) for side in ("ours", "stock")]
        cells += [megabytes(found["peak_mb"][side][index]) for side in ("ours", "stock")]
        rows.append(cells)
    lines = found["line"]
    for name, key, show in (("each more", "each", seconds), ("R2 of the line", "r2", str)):
        rows.append([name, *(show(lines[side][key]) for side in ("ours", "stock")), "", ""])
    heads = (what, "ours", "stock", "peak of ours", "peak of stock")
    title = f"Growth with {what}, processor time"
    if all(line["r2"] >= STRAIGHT for line in lines.values()):
        title += f"; each more: ours is {found['each_of_stock']:.3f} of stock"
    return Table(rows, heads=heads, title=title)
