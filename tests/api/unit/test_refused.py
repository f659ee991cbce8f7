"""Calls that found no room are new ones when they come again, each once."""

from __future__ import annotations

from flux_hotswap.hosted_api.refused import Refused

CALL, OTHER = ("me", "d1"), ("you", "d1")


def test_each_refused_call_is_taken_once() -> None:
    refused = Refused()
    for moment in (1.0, 2.0):
        refused.add(CALL, moment)
    taken = [refused.take(call, 0.0) for call in (OTHER, CALL, CALL, CALL)]
    assert taken == [False, True, True, False]


def test_one_that_is_too_old_is_forgotten() -> None:
    refused = Refused()
    refused.add(CALL, 1.0)
    refused.add(OTHER, 3.0)
    assert [refused.take(call, 2.0) for call in (CALL, OTHER)] == [False, True]
