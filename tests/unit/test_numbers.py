"""The page of numbers says what the files of results say, and `dev.py bench` knows them all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import command, page, tables

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in page.RESULTS.glob("*.json"))


def result(name: str) -> dict[str, Any]:
    return page.load(page.RESULTS / f"{name}.json")


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "dev.py", "bench", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# --- the page ---


def test_every_result_has_its_section() -> None:
    assert {"cost", "save", "fetch", "lora", "int8_load", "int8_lora", "int8_error"} <= set(NAMES)
    text = page.PAGE.read_text(encoding="utf-8")
    for name in NAMES:
        assert f"\n## {name}\n" in text
        assert f"](../bench/results/{name}.json)" in text


def test_a_changed_result_is_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, target = tmp_path / "results", tmp_path / "numbers.md"
    shutil.copytree(page.RESULTS, results)
    monkeypatch.setattr(page, "RESULTS", results)
    monkeypatch.setattr(page, "PAGE", target)
    assert page.main(["--check"]) == 1
    assert not target.exists()
    assert page.main([]) == 0
    assert page.main(["--check"]) == 0
    changed = result("save")
    changed["formats"]["webp"]["ours"]["seconds_median"] = 9.87
    (results / "save.json").write_text(json.dumps(changed), encoding="utf-8")
    capsys.readouterr()
    assert page.main(["--check"]) == 1
    assert capsys.readouterr().err.startswith("numbers.md is out of date")
    assert page.main([]) == 0
    assert "| webp | 9.87 s |" in target.read_text(encoding="utf-8")


def test_results_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    text = page.page(tmp_path)
    assert "## save" not in text
    assert text.endswith(f"{page.NO_GPU}\n\nAgain: `python3 dev.py bench gpu_kit`.\n")


def test_a_ratio_is_that_of_the_medians() -> None:
    found = result("save")["formats"]["webp"]
    ours, pillow = (found[name]["seconds_median"] for name in ("ours", "pillow"))
    (table,) = page.rendered("save", result("save"))
    row = dict(zip(table.heads, table.rows[0], strict=True))
    assert row["ours"] == f"{ours * 1e3:.0f} ms"
    assert row["peer"] == f"{pillow * 1e3:.0f} ms (Pillow)"
    assert row["ours / peer"] == f"{ours / pillow:#.3g}"
    runs = [f"{value * 1e3:.0f} ms" for value in sorted(found["ours"]["seconds"])]
    assert row["spread"] == f"{runs[0]} .. {runs[-1]} in {len(runs)} runs"


def test_a_peer_that_was_not_there() -> None:
    found = result("fetch")
    found["limited"] = {"ours": found["limited"]["ours"], "missing": "aria2c"}
    (table,) = page.rendered("fetch", found)
    assert ["aria2c was not installed" in row[2] for row in table.rows].count(True) == 1


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_whole(name: str) -> None:
    made = page.rendered(name, result(name))
    assert made
    for table in made:
        assert table.rows
        for row in table.rows:
            assert len(row) == len(table.heads)
            assert all(isinstance(cell, str) for cell in row)
            assert "nan" not in row


def test_a_result_without_a_function_is_shown_value_by_value() -> None:
    found = {
        "machine": {"cpu": "x", "cores": 2},
        "setup": {"prompts": 700},
        "prompts": {"valid": 500, "cancelled": 12},
        "memory_mb": [700.0, 712.5, 711.0],
        "seconds": 1234.5678,
        "note": "a | b",
        "cases": [{"name": "kill", "passed": True}],
    }
    (table,) = page.rendered("another", found)
    assert {row[0]: row[1] for row in table.rows} == {
        "prompts, valid": "500",
        "prompts, cancelled": "12",
        "memory_mb": "first 700, last 711, 700 .. 712, median 711",
        "seconds": "1235",
        "note": "a | b",
        "cases 1, name": "kill",
        "cases 1, passed": "True",
    }
    assert "| note | a \\| b |" in page.markdown(table)
    assert page.where(found) == "Measured on x, 2 cores, prompts 700."


def test_a_soak_shows_what_grew() -> None:
    report = {
        "prompts": {"valid": 500, "invalid": 200},
        "outcomes": {"files": 500, "refused": 200},
        "problems": [],
        "trend": {
            "warm_up": 0.2,
            "memory_mb": {"first_quarter": 800.0, "last_quarter": 804.0, "per_100_prompts": 0.57},
            "open_files": {"first_quarter": 7, "last_quarter": 7, "per_100_prompts": 0},
            "threads": {"first_quarter": 8, "last_quarter": 9, "per_100_prompts": 0.1},
        },
    }
    outcomes, growth = page.rendered("soak", report)
    assert outcomes.title == "500 valid, 200 invalid"
    assert outcomes.rows[-1] == ("problems", "0")
    assert growth.rows == [
        ("memory, MB", "800", "804", "0.570"),
        ("open files", "7.00", "7.00", "0"),
        ("threads", "8.00", "9.00", "0.100"),
    ]


def test_what_a_peer_leaves_out_of_a_lora_has_no_ratio() -> None:
    def row(weights: int, error: float) -> dict[str, Any]:
        return {
            "ours": {"weights": 4, "error": 0.03},
            "peer": {"weights": weights, "error": error},
            "of": 4,
            "keys": 8,
            "int8": {"gain": 1.0, "noise": 0.001},
        }

    report = {
        "families": {"a": row(4, 0.06), "b": row(3, 0.5), "c": row(0, 1.0)},
        "kinds": {"d": row(4, 0.03)},
        "refused": {"e": {"words": "it is made for E", "peer_weights": 2}},
    }
    families, kinds, refused = page.rendered("lora_families", report)
    assert families.rows == [
        ("a", "0.0300", "0.0600", "0.50", "1.000", "0.001"),
        ("b", "0.0300", "0.500, 3 of 4 weights", "in part", "1.000", "0.001"),
        ("c", "0.0300", "nothing of it", "nothing", "1.000", "0.001"),
    ]
    assert kinds.rows[0][3] == "1.00"
    assert refused.rows == [("e", "it is made for E", "2 weights changed")]


def test_survivors_are_shown_with_their_reasons() -> None:
    survived = {"line 3: a < b -> a <= b": "equal numbers cannot come"}
    report = {"files": {"x.py": {"mutants": 9, "killed": 8, "survived": survived}}}
    counts, reasons = page.rendered("mutation", report)
    assert counts.rows == [("x.py", "9", "8", "1")]
    assert reasons.rows == [("x.py", *next(iter(survived.items())))]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.2e-5, "1.2e-05"),
        (0.0725, "0.0725"),
        (1, "1.00"),
        (99.94, "99.9"),
        (1234, "1234"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_times() -> None:
    assert [tables.seconds(x) for x in (0.00121, 0.311, 6.376)] == ["1.21 ms", "311 ms", "6.38 s"]


# --- the command ---


def test_every_script_with_results_is_listed() -> None:
    known = command.benches()
    assert set(known) >= {"cost", "save", "fetch", "lora", "int8_load", "int8_lora", "gpu_kit"}
    assert "traffic" in known
    assert not {"command", "common", "page", "tables", "file_server"} & set(known)
    assert set(page.RENDER) <= set(known)
    assert set(command.SHORT) <= set(known)
    for words in ((), ("--list",)):
        done = bench(*words)
        assert done.returncode == 0
        listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
        assert list(listed) == list(known)
        assert all(listed[name].startswith(about) for name, about in known.items())


def test_an_unknown_name() -> None:
    done = bench("nothing")
    assert done.returncode == 2
    assert "no benchmark 'nothing'; there are" in done.stderr
