"""What a request needs from elsewhere, fetched beside the loading of the models.

The form begins every fetch and waits until each one's bytes arrive: what cannot be had ends the
prompt within seconds, before a model is loaded. The rest of the bytes come while the models load,
and the node that needs a file waits for its end.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..errors import HotswapError, StoreError
from ..prediction.fill import is_link
from .fetching import cancelled, cancelled_as_comfy_does, open_store, progress_bar
from .weights import missing_weights, weight_file

if TYPE_CHECKING:
    from pathlib import Path

    from ..lora_fetch.fetch import Fetched
    from ..prediction.plan import Lora, Plan

T = TypeVar("T")
Tell = Callable[[int, "int | None"], None]
Stop = Callable[[], bool]

POLL_SECONDS: Final = 0.05


@dataclass
class Fetch:
    """A fetch on its way, in a thread of its own.

    Attributes:
        ended: tells whether the prompt that it is for is over.
        result: what it brings in the end.
        under_way: set once bytes arrive, or it has ended.
        done: bytes so far.
        total: bytes in all, None while unknown.
        stopped: set to give it up.
    """

    ended: Stop
    result: Future[Any] = field(default_factory=Future[Any])
    under_way: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    total: int | None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def tell(self, done: int, total: int | None) -> None:
        """Take note of how far it is; its thread calls this."""
        self.done, self.total = done, total
        self.under_way.set()

    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.stopped.is_set() or self.ended()

    def run(self, work: Callable[[Tell, Stop], Any]) -> None:
        """Do the work and keep what comes of it."""
        try:
            self.result.set_result(work(self.tell, self.given_up))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            self.result.set_exception(error)
        finally:
            self.under_way.set()


_running: dict[str, Fetch] = {}
"""Those of the prompt that runs; two forms in it share what both need."""


def begin(plan: Plan, prompt: Mapping[str, Any]) -> None:
    """Begin to fetch what a plan needs, and wait until everything is under way.

    Args:
        plan: what will run.
        prompt: the whole graph; only what a node of it needs is fetched.

    Raises:
        HotswapError: a LoRA or a safety file cannot be had.
        InterruptProcessingException: the user pressed cancel.
    """
    for key in [key for key, fetch in _running.items() if fetch.given_up()]:
        del _running[key]  # an earlier prompt began it and did not get so far
    ended = _prompt_ended()
    fields: dict[str, str] = {}
    for key, field_name, work in _needed(plan, prompt):
        fields.setdefault(key, field_name)
        if key not in _running:
            _start(key, work, ended)
    with ExitStack() as failing:
        failing.callback(_stop_all)
        for key, field_name in fields.items():
            _under_way(_running[key], field_name)
        failing.pop_all()  # all are under way


def _stop_all() -> None:
    for fetch in _running.values():
        fetch.stopped.set()


def _needed(
    plan: Plan, prompt: Mapping[str, Any]
) -> Iterator[tuple[str, str, Callable[[Tell, Stop], Any]]]:
    """Yield what a plan needs: its key, the field that asks for it, and how it is had."""
    if _takers(prompt, "FluxHotswapLora"):
        for wanted in plan.loras:
            if wanted.strength:
                yield _lora_key(wanted.source), wanted.field, _lora_work(wanted.source)
    checkers = [inputs.get("checker") for inputs in _takers(prompt, "FluxHotswapSafety")]
    if plan.safety_checker and any(checker in (None, "hosted") for checker in checkers):
        for name in missing_weights():
            yield _weights_key(name), "disable_safety_checker", _weights_work(name)


def _under_way(fetch: Fetch, field_name: str) -> None:
    """Wait until bytes arrive; raise what went wrong, with the field that asked for them.

    Raises:
        HotswapError: it cannot be had.
        InterruptProcessingException: the user pressed cancel.
    """
    while not fetch.under_way.wait(POLL_SECONDS):
        _heed_cancel(fetch)
    if fetch.result.done():
        with _naming(field_name):
            _result(fetch)


@contextmanager
def _naming(field_name: str) -> Generator[None, None, None]:
    """Put the field that asked for it before what went wrong with a fetch."""
    try:
        yield
    except HotswapError as error:
        error.at(field_name)
        raise
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"{field_name}: the disk fails ({reason}). Check it.") from error


def lora(wanted: Lora) -> Fetched:
    """Return the file of a LoRA, fetched unless it is here.

    Raises:
        HotswapError: it cannot be had; the message names the field and says why.
        InterruptProcessingException: the user pressed cancel.
    """
    with _naming(wanted.field):
        return _end_of(_lora_key(wanted.source), _lora_work(wanted.source))


def weights(name: str) -> Path:
    """Return a file of the hosted safety checker, fetched unless it is here.

    Raises:
        WeightsError: it cannot be had, or is not the right one.
        InterruptProcessingException: the user pressed cancel.
    """
    return _end_of(_weights_key(name), _weights_work(name))


def _end_of(key: str, work: Callable[[Tell, Stop], T]) -> T:
    """Wait for a fetch that was begun; do the work here if none was."""
    fetch = _running.pop(key, None)
    tell = progress_bar()
    if fetch is None or fetch.given_up():
        with cancelled_as_comfy_does():
            return work(tell, cancelled)
    while not wait([fetch.result], POLL_SECONDS).done:
        _heed_cancel(fetch)
        if fetch.done:
            tell(fetch.done, fetch.total)
    return _result(fetch)


def _result(fetch: Fetch) -> Any:
    with cancelled_as_comfy_does():
        return fetch.result.result()


def _heed_cancel(fetch: Fetch) -> None:
    import comfy.model_management

    if cancelled():
        fetch.stopped.set()
        comfy.model_management.throw_exception_if_processing_interrupted()


def _start(key: str, work: Callable[[Tell, Stop], Any], ended: Stop) -> None:
    fetch = _running[key] = Fetch(ended)
    threading.Thread(target=fetch.run, args=(work,), name="fetch ahead", daemon=True).start()


def _prompt_ended() -> Stop:
    """Return what tells that the prompt which runs now is over, or is being cancelled."""
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    # Looked up, not imported: without a server nobody but the user can end a prompt.
    server: Any = getattr(
        getattr(sys.modules.get("server"), "PromptServer", None), "instance", None
    )
    if context is None or server is None:
        return cancelled

    def ended() -> bool:
        running, _ = server.prompt_queue.get_current_queue_volatile()
        return cancelled() or all(item[1] != context.prompt_id for item in running)

    return ended


def _takers(prompt: Mapping[str, Any], class_type: str) -> list[Mapping[str, Any]]:
    """Return the inputs of the nodes of a class that take a request."""
    found = [
        node.get("inputs") or {} for node in prompt.values() if node.get("class_type") == class_type
    ]
    return [inputs for inputs in found if is_link(inputs.get("request"))]


def _lora_key(source: str) -> str:
    return f"lora {source.strip()}"


def _lora_work(source: str) -> Callable[[Tell, Stop], Fetched]:
    def work(tell: Tell, stop: Stop) -> Fetched:
        from ..lora_fetch.fetch import fetch

        store = open_store()
        return fetch(source, store=store, settings=store.settings, progress=tell, cancelled=stop)

    return work


def _weights_key(name: str) -> str:
    return f"weights {name}"


def _weights_work(name: str) -> Callable[[Tell, Stop], Path]:
    return lambda tell, stop: weight_file(name, tell, stop)
