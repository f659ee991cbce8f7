"""What the results of the hosted model's API and of its workers say, as tables. Stdlib only."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from bench.tables import Report, Table, extent, number, seconds

__all__ = ["dispatch_sim", "hosted_api", "replicas", "soak_api"]


def hosted_api(report: Report) -> Iterator[Table]:
    """The API over ComfyUI's own."""
    kept = report["kept_picture"]
    base = kept["comfyui"]["seconds_median"]
    ways = {"comfyui": "ComfyUI's own API", "ours": "ours",
            "comfy_api_proxy": "comfy-api-proxy, by its events",
            "comfy_api_proxy_polled": "comfy-api-proxy, polled each 10 ms",
            "ours_on_two": "ours over two ComfyUIs"}  # fmt: skip
    yield Table(
        [
            (
                ways[name],
                seconds(found["seconds_median"]),
                seconds(found["seconds_median"] - base),
                "20 ms" if name == "ours" else "",
                extent(found["seconds"]),
            )
            for name, found in kept.items()
            if name != "comfyui"
        ],
        ("a picture that is kept", "time", f"over ComfyUI's own API ({seconds(base)})", "goal",
         "spread"),
    )  # fmt: skip
    rates = {name: statistics.median(each) for name, each in report["pictures_a_minute"].items()}
    yield Table(
        [
            (ways[name], f"{rate:.0f}", f"{rate / rates['comfyui']:.2f}")
            for name, rate in rates.items()
        ],
        ("new pictures", "a minute", "of ComfyUI's own"),
    )


def dispatch_sim(report: Report) -> Iterator[Table]:
    """The simulated day, and the few callers."""
    names = {"ours": "ours", "ray": "Ray's default", "in_line": "in line, the nearest"}
    day = {names[name]: found for name, found in report["day"].items()}
    rows: dict[str, Callable[[Report], str]] = {
        "predictions drawn": lambda found: str(found["drawn"]),
        "refused, since 500 waited": lambda found: str(found["refused"]),
        "time of the workers: drawing": lambda found: f"{found['drawing']:.1%}",
        "loading": lambda found: f"{found['loading']:.1%}",
        "models loaded in place of another": lambda found: str(found["model_switches"]),
        "LoRAs changed": lambda found: str(found["lora_switches"]),
        "wait: mean": lambda found: seconds(found["wait"]["mean"]),
        "half / 99 of 100 / worst": lambda found: _waits(found["wait"]),
        "of the owner who asks for 100 at once": lambda f: _waits(f["wait_of_the_greedy"]),
        "of the others": lambda found: _waits(found["wait_of_others"]),
        "overtaken at most / bound": lambda found: (
            f"{found['overtaken_at_most']} / {found['bound']}" if "bound" in found else "0"
        ),
    }
    yield Table(
        [(what, *(show(found) for found in day.values())) for what, show in rows.items()],
        ("a day of 64 workers", *day),
    )
    yield Table(
        [
            (
                f"{many} callers, {names[name]}",
                str(found["model_switches"]),
                str(found["lora_switches"]),
                f"{(found['model_switches'] + found['lora_switches']) / _switches(each):.2f}",
                f"{found['drawn_a_minute']:.0f}",
                _waits(found["wait"]),
            )
            for many, each in report["callers"].items()
            for name, found in each.items()
        ],
        ("two workers, eight kinds", "models loaded", "LoRAs changed", "of Ray's",
         "drawn a minute", "wait: half / 99 of 100 / worst"),
    )  # fmt: skip


def soak_api(report: Report) -> Iterator[Table]:
    """Predictions through kills."""
    kills = ", ".join(f"{many} of {what}" for what, many in report["kills"].items())
    yield Table(
        [
            ("predictions, each ended once", str(report["predictions"])),
            ("kills", kills),
            ("drawn again after a kill", str(report["drawn_again"])),
            ("problems", str(len(report["problems"]))),
            ("minutes", number(report["minutes"])),
        ],
        ("what", "how many"),
    )


def replicas(report: Report) -> Iterator[Table]:
    """The API over replicas of Ray, beside ComfyUIs that it starts itself."""
    ways = {"local": "ComfyUIs of its own", "ray": "replicas of Ray"}
    yield Table(
        [
            (
                f"{name}, {workers}",
                f"{statistics.median(report[f'{way}_{workers}']['rates']):.0f}",
                f"{min(report[f'{way}_{workers}']['rates']):.0f} to "
                f"{max(report[f'{way}_{workers}']['rates']):.0f}",
                f"{report[f'{way}_{workers}']['start_seconds']:.0f} s",
            )
            for workers in (1, 2)
            for way, name in ways.items()
        ],
        ("the API over", "new pictures a minute", "spread", "start"),
    )
    kept = {way: report[f"{way}_1"]["kept"] for way in ways}
    over = kept["ray"]["seconds_median"] - kept["local"]["seconds_median"]
    yield Table(
        [
            *(
                (f"a picture that is kept, {name}", seconds(kept[way]["seconds_median"]))
                for way, name in ways.items()
            ),
            ("what Ray adds to a picture", seconds(over)),
            ("memory of Ray with 2 replicas", f"{report['ray_2']['ray_mb']} MB"),
            ("processes of Ray with 2 replicas", str(report["ray_2"]["ray_processes"])),
        ],
        ("what", "how much"),
    )
    yield Table(
        [
            (what, _mean(found["picture"]), _mean(found["whole"]))
            for what, found in report["recovery"].items()
        ],
        ("killed in the midst of a draw", "until the picture is there", "until all is as it was"),
        "Means, and the least and the most",
    )
    names = {"ours": "our dispatcher", "ray": "Ray's own router"}
    yield Table(
        [
            (
                names[name],
                *(str(found[what]) for what in ("models", "loras")),
                f"{found['drawn'] / found['seconds'] * 60:.0f}",
                f"{found['wait_median']:.1f} s, {found['wait_worst']:.1f} s",
            )
            for name, found in report["mix"].items()
        ],
        ("two models, four LoRAs each", "loads of a model", "of a model or LoRA",
         "pictures a minute", "wait: median, worst"),
    )  # fmt: skip


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


def _waits(found: Report) -> str:
    return " / ".join(seconds(found[name]) for name in ("p50", "p99", "worst"))


def _switches(each: Report) -> int:
    return int(each["ray"]["model_switches"] + each["ray"]["lora_switches"])
