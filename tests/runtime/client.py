"""Talk to a running ComfyUI: submit API prompts, follow them, fetch results.

client = Client(server.url)
result = client.run(prompt, on_progress=print)
for image in result.images(): data = client.view(image)
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

Prompt = Mapping[str, Any]
JSON = dict[str, Any]

# Called with (node id, steps done, steps in all); (node id, 0, 0) when a node starts.
OnProgress = Callable[[str, int, int], None]

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class HTTPStatusError(RuntimeError):
    """The server answered with an error status."""

    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path} gave HTTP {status}: {body}")
        self.status = status
        self.body = body


class PromptRejectedError(RuntimeError):
    """The server refused a prompt (HTTP 400).

    Attributes:
        error: ComfyUI's `error` object (type, message, details, extra_info).
        node_errors: its `node_errors`, by node id.
    """

    def __init__(self, answer: JSON) -> None:
        super().__init__(f"ComfyUI refused the prompt: {json.dumps(answer, indent=1)}")
        error = answer.get("error")
        self.error: JSON = error if isinstance(error, dict) else {"message": str(error)}
        self.node_errors: JSON = answer.get("node_errors") or {}


class ExecutionError(RuntimeError):
    """A node raised while the prompt ran, or the run was interrupted.

    Attributes:
        node_id: the node that raised.
        node_type: its class.
        exception_type: what it raised.
        message: the text of it.
        interrupted: whether the run was interrupted instead.
        result: what there is of the result.
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        failures = [data for kind, data in result.messages if kind == "execution_error"]
        data: JSON = failures[-1] if failures else {}
        self.interrupted = not failures
        self.node_id = str(data.get("node_id", ""))
        self.node_type = str(data.get("node_type", ""))
        self.exception_type = str(data.get("exception_type", ""))
        self.message = str(data.get("exception_message", "")).strip()
        trace = "".join(data.get("traceback") or [])
        what = (
            f"node {self.node_id} ({self.node_type}) raised {self.exception_type}: {self.message}"
            f"\n{trace}"
            if failures
            else f"the run was interrupted: {result.messages}"
        )
        super().__init__(what)


class ServerGoneError(RuntimeError):
    """The server closed the connection while a prompt ran, or did not finish in time."""


@dataclass(frozen=True)
class Result:
    """What became of one prompt.

    Attributes:
        prompt_id: its id.
        outputs: by node id, what output nodes showed (`{"images": [...]}`).
        status: `success` or `error`.
        messages: ComfyUI's (kind, data) messages.
        cached_nodes: ids of the nodes whose results were still there.
        executed_nodes: ids of the nodes that ran, in order.
    """

    prompt_id: str
    outputs: JSON
    status: str
    messages: list[tuple[str, JSON]] = field(repr=False)
    cached_nodes: list[str]
    executed_nodes: list[str]

    def images(self) -> list[JSON]:
        """All images of all nodes, each `{filename, subfolder, type}`."""
        return [image for shown in self.outputs.values() for image in shown.get("images", [])]

    def shown(self, key: str) -> list[Any]:
        """All values that nodes showed under `key`; our own nodes show JSON texts."""
        found = [value for shown in self.outputs.values() for value in shown.get(key, [])]
        return [json.loads(value) for value in found] if key.startswith("flux_hotswap") else found


class Client:
    """A client of one server. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    # --- prompts ---

    def run(
        self,
        prompt: Prompt,
        *,
        on_progress: OnProgress | None = None,
        extra_data: JSON | None = None,
        timeout: float = 600.0,
    ) -> Result:
        """Run an API prompt to its end.

        Raises:
            PromptRejectedError: the server refused it.
            ExecutionError: a node raised, or the run was interrupted.
            ServerGoneError: the server went away or took longer than `timeout`.
        """
        following = self._follow(prompt, on_progress or _ignore, extra_data)
        # A thread of its own: the caller may be inside an event loop (a browser test is).
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(asyncio.run, _within(timeout, following)).result()
        if result.status != "success":
            raise ExecutionError(result)
        return result

    def submit(
        self, prompt: Prompt, *, client_id: str | None = None, extra_data: JSON | None = None
    ) -> str:
        """Queue an API prompt and return its id at once; see `wait`.

        Raises:
            PromptRejectedError: the server refused it.
        """
        # Always with a client id: 0.3.75 forgets what cached nodes showed when there is none.
        body: JSON = {"prompt": dict(prompt), "client_id": client_id or str(uuid.uuid4())}
        if extra_data:
            body["extra_data"] = extra_data
        try:
            return self.post("/prompt", body)["prompt_id"]
        except HTTPStatusError as failure:
            raise _rejection(failure) from failure

    def wait(self, prompt_id: str, *, timeout: float = 600.0) -> Result:
        """Wait for a submitted prompt; its result, whatever its status."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            result = self.result(prompt_id)
            if result is not None:
                return result
            time.sleep(0.05)  # between polls
        raise ServerGoneError(f"prompt {prompt_id} did not finish in {timeout:.0f} s")

    def result(self, prompt_id: str, executed: list[str] | None = None) -> Result | None:
        """The result of a finished prompt, None before it has finished."""
        entry = self.get(f"/history/{prompt_id}").get(prompt_id)
        if entry is None:
            return None
        status = entry.get("status") or {}
        messages = [(str(kind), data) for kind, data in status.get("messages", [])]
        cached = [
            str(node)
            for kind, data in messages
            if kind == "execution_cached"
            for node in data["nodes"]
        ]
        return Result(
            prompt_id=prompt_id,
            outputs=entry.get("outputs") or {},
            status=str(status.get("status_str", "error")),
            messages=messages,
            cached_nodes=cached,
            executed_nodes=executed or [],
        )

    async def _follow(
        self, prompt: Prompt, on_progress: OnProgress, extra_data: JSON | None
    ) -> Result:
        import aiohttp

        client_id = str(uuid.uuid4())
        where = f"{self.url}/ws?clientId={client_id}"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(where, max_msg_size=0) as socket,
        ):
            prompt_id = self.submit(prompt, client_id=client_id, extra_data=extra_data)
            executed: list[str] = []
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue  # previews are binary
                if _take(json.loads(message.data), prompt_id, executed, on_progress):
                    break
        result = self.result(prompt_id, executed)
        if result is None:
            raise ServerGoneError(f"the server closed the connection while {prompt_id} ran")
        return result

    # --- the rest of the API ---

    def object_info(self, node: str | None = None) -> JSON:
        """The description of all node classes, or of one."""
        if node is None:
            return self.get("/object_info")
        return self.get(f"/object_info/{urllib.parse.quote(node)}")[node]

    def system_stats(self) -> JSON:
        """Versions and devices."""
        return self.get("/system_stats")

    def history(self) -> JSON:
        """All finished prompts by id."""
        return self.get("/history")

    def queue(self) -> JSON:
        """Running and waiting prompts."""
        return self.get("/queue")

    def view(self, image: Mapping[str, Any]) -> bytes:
        """The bytes of a file that a node showed: `{filename, subfolder, type}`."""
        keys = ("filename", "subfolder", "type")
        query = urllib.parse.urlencode({key: image.get(key, "") for key in keys})
        return self.request("GET", f"/view?{query}")

    def upload(self, name: str, data: bytes, *, overwrite: bool = True) -> str:
        """Put a file into the input folder; the name to give to LoadImage."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"'
        flag = f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\n'
        body = f"{head}\r\nContent-Type: application/octet-stream\r\n\r\n".encode() + data
        body += f"{flag}{str(overwrite).lower()}\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        answer = json.loads(self.request("POST", "/upload/image", body, kind))
        return "/".join(part for part in (answer.get("subfolder"), answer["name"]) if part)

    def interrupt(self) -> None:
        """Stop the running prompt."""
        self.post("/interrupt", {})

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """Have the server drop models and cached results before its next prompt."""
        self.post("/free", {"unload_models": unload_models, "free_memory": free_memory})

    # --- HTTP ---

    def get(self, path: str) -> JSON:
        """GET a path and decode its JSON."""
        return json.loads(self.request("GET", path))

    def post(self, path: str, body: JSON) -> JSON:
        """POST JSON to a path and decode the JSON answer, {} when there is none."""
        answer = self.request("POST", path, json.dumps(body).encode(), "application/json")
        return json.loads(answer) if answer.strip() else {}

    def request(
        self, method: str, path: str, body: bytes | None = None, kind: str | None = None
    ) -> bytes:
        """Send one request; the body of the answer.

        Raises:
            HTTPStatusError: for every status of 400 and above.
        """
        headers = {"Content-Type": kind} if kind else {}
        request = urllib.request.Request(  # noqa: S310 - the address is our own server's
            self.url + path, data=body, headers=headers, method=method
        )
        try:
            with _DIRECT.open(request, timeout=120) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", "replace")
            raise HTTPStatusError(method, path, error.code, text) from None


def _ignore(node: str, value: int, maximum: int) -> None:
    """Nobody wants to know about progress."""


async def _within(timeout: float, following: Any) -> Result:
    try:
        return await asyncio.wait_for(following, timeout)
    except asyncio.TimeoutError:
        raise ServerGoneError(f"the prompt did not finish in {timeout:.0f} s") from None


def _take(event: JSON, prompt_id: str, executed: list[str], on_progress: OnProgress) -> bool:
    """Take in one websocket event; whether it was the last of this prompt."""
    kind, data = event.get("type"), event.get("data") or {}
    if data.get("prompt_id") != prompt_id:
        return False
    node = data.get("node")
    if kind == "executing":
        if node is None:
            return True
        executed.append(str(node))
        on_progress(str(node), 0, 0)
    elif kind == "progress":
        on_progress(str(node), int(data["value"]), int(data["max"]))
    return False


def _rejection(failure: HTTPStatusError) -> Exception:
    try:
        answer = json.loads(failure.body)
    except ValueError:
        return failure
    return PromptRejectedError(answer) if failure.status == 400 else failure
