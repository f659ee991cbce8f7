"""What is held for the next prompt, and for how long."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from ops import recent
from ops.recent import Recent


class Model:
    """Something large."""


def test_what_somebody_has_is_found() -> None:
    models, model = Recent(), Model()
    models.note("a", model)
    assert models.take("a") is model
    assert models.take("b") is None


def test_nothing_is_kept_alive() -> None:
    models, model = Recent(), Model()
    models.note("a", model)
    del model
    gc.collect()
    assert models.take("a") is None


def test_what_is_held_outlives_its_owner_until_it_is_taken() -> None:
    models, model = Recent(), Model()
    models.note("a", model)
    models.hold()
    gone = weakref.ref(model)
    del model
    gc.collect()
    taken = models.take("a")
    assert taken is gone()
    assert taken is not None
    del taken
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("again", [False, True], ids=["let go", "held again"])
def test_what_nobody_wants_is_let_go(again: bool) -> None:
    models, first, second = Recent(), Model(), Model()
    models.note("a", first)
    models.note("b", second)
    models.hold()
    gone = weakref.ref(first)
    del first
    if again:
        assert models.take("a") is not None
        models.hold()
    else:
        models.let_go()
    gc.collect()
    assert gone() is None
    assert models.take("b") is second


def test_time_lets_go() -> None:
    models, model, over = Recent(seconds=0.05), Model(), threading.Event()
    models.note("a", model)
    weakref.finalize(model, over.set)
    models.hold()
    del model
    assert over.wait(10)
    assert models.take("a") is None


def test_another_model_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer of an earlier prompt ends nothing of a later one."""
    started: list[threading.Timer] = []

    class Timer(threading.Timer):
        def start(self) -> None:
            started.append(self)

    monkeypatch.setattr(recent.threading, "Timer", Timer)
    models, model = Recent(), Model()
    models.note("a", model)
    models.hold()
    models.hold()
    gone = weakref.ref(model)
    del model
    started[0].function()  # as if it had begun before it was cancelled
    gc.collect()
    assert gone() is not None
    started[1].function()
    gc.collect()
    assert gone() is None
