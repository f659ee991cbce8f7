"""The commands of dev.py that decide something."""

from __future__ import annotations

import os
import sys

import pytest

import dev

# Stands for pytest: says which half it is and ends as the table wants.
HALF = """
import os, sys
served = not any(word.startswith("--ignore=") for word in sys.argv)
half = "of nodes on servers" if served else "of all else"
print(half, len(sys.argv) - 3, "threads", os.environ["OMP_NUM_THREADS"])
sys.exit(int(sys.argv[1] if served else sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("served", "others", "status"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (2, 1, 2)],
    ids=["both pass", "a server test fails", "another fails", "both fail"],
)
def test_all_tests_pass_if_both_halves_do(
    served: int,
    others: int,
    status: int,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert dev.test_all([sys.executable, "-c", HALF, str(served), str(others)]) == status
    out, err = capfd.readouterr()
    assert out.splitlines() == ["of nodes on servers 3 threads 3", "of all else 4 threads 3"]
    assert "of all else" in err
