"""What is held for the next prompt, and for how long."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from flux_hotswap.ops import recent
from flux_hotswap.ops.recent import Last, Recent


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


# --- the last thing ---


def test_the_last_is_made_once() -> None:
    last, model = Last(), Model()
    made = [last.get(model, key, object) for key in ("a", "a", "b", "a")]
    assert made[0] is made[1]
    assert len({id(each) for each in made}) == 3


def test_the_last_of_another_is_another() -> None:
    last, model, other = Last(), Model(), Model()
    first = last.get(model, "a", object)
    assert last.get(other, "a", object) is not first


def test_the_last_goes_with_what_it_was_made_of() -> None:
    last, model, made = Last(), Model(), Model()
    gone = weakref.ref(made)
    last.get(model, "a", [made].pop)
    del made
    assert gone() is not None
    del model
    gc.collect()
    assert gone() is None


def test_the_end_of_an_earlier_one_takes_nothing_away() -> None:
    last, model, other = Last(), Model(), Model()
    last.get(model, "a", object)
    made = last.get(other, "a", object)
    del model
    gc.collect()
    assert last.get(other, "a", object) is made


def test_a_failure_leaves_the_last_as_it_was() -> None:
    last, model = Last(), Model()
    made = last.get(model, "a", object)
    with pytest.raises(ZeroDivisionError):
        last.get(model, "b", lambda: 1 / 0)
    assert last.get(model, "a", object) is made
