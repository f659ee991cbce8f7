"""Source to `Resolved`: the address of the bytes and what is known about them beforehand."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote, urljoin, urlsplit

from ..errors import FetchError, NotAuthorisedError, NotFoundError, OfflineError
from ..files.addresses import bare_url
from ..files.answer import Answer
from ..files.net import UNAUTHORISED, Client
from ..files.validators import validator
from . import civitai, hub
from .api import Api, Resolved, table
from .source import CivitAI, HuggingFace, Link, Replicate, Source, Tar, named_in

__all__ = ["Resolved", "resolve"]


def resolve(
    source: Source, *, client: Client, cancelled: Callable[[], bool], probe: bool = False
) -> Resolved:
    """Ask the source's service where the bytes are.

    Args:
        source: A source that lives elsewhere (neither a local file nor a data URI).
        client: Sends the requests.
        cancelled: Asked often.
        probe: Also ask a plain link for its present state, to learn whether it changed.

    Raises:
        FetchError: there is none, we may not have it, or the service cannot be reached.
    """
    api = Api(source, client, cancelled)
    if isinstance(source, HuggingFace):
        return hub.resolve(source, api)
    if isinstance(source, CivitAI):
        return civitai.resolve(source, api)
    if isinstance(source, Replicate):
        return _replicate(source, api)
    if isinstance(source, Link):
        return _link(source, api, probe=probe)
    raise TypeError(f"{type(source).__name__} needs no address")


def _link(source: Link, api: Api, *, probe: bool) -> Resolved:
    name = named_in(source.url) or unquote(urlsplit(source.url).path.rsplit("/", 1)[-1])
    revision = None
    if probe:
        answer = api.look("GET", source.url, headers={"Range": "bytes=0-0"}, follow=True)
        revision = validator(answer)
    return Resolved(
        url=source.url,
        tar=isinstance(source, Tar),
        name=name,
        sha256=source.sha256,
        revision=revision,
    )


def _replicate(source: Replicate, api: Api) -> Resolved:
    """Follow the model's weights to the tar they live in.

    The site answers with a redirect to the delivery host; its final address is the revision, since
    a delivery never changes.
    """
    base = f"{api.settings.endpoints.replicate}/{source.owner}/{source.name}"
    url = f"{base}/versions/{source.version}/_weights" if source.version else f"{base}/_weights"
    try:
        answer = api.look("GET", url, follow=_to_another_site)
        if "html" in answer.header("Content-Type") and answer.status < 300:
            raise NotAuthorisedError(
                f"{source.shown()}: Replicate shows a page instead of the weights, so they are not "
                "public. Download them from the training's page into your loras folder and give "
                "the file's name.",
                status=answer.status,
            )
    except (NotFoundError, NotAuthorisedError) as error:
        raise _replicate_known(source, api, error) from None
    target = answer.url
    if answer.status >= 300:
        target = urljoin(answer.url, answer.header("Location"))
    name = urlsplit(target).path.rsplit("/", 1)[-1]
    return Resolved(
        url=target,
        tar=not name.lower().endswith(".safetensors"),
        name=name,
        revision=bare_url(target),
    )


def _to_another_site(_: Answer, target: str) -> bool:
    """Whether a redirect asks the same of another address of the site."""
    return urlsplit(target).path.endswith("/_weights")


def _replicate_known(
    source: Replicate, api: Api, error: NotFoundError | NotAuthorisedError
) -> FetchError:
    """With the user's token, tell a model that is private from one that does not exist."""
    url = f"{api.settings.endpoints.replicate_api}/v1/models/{source.owner}/{source.name}"
    if api.settings.tokens.for_url(url) is None:
        return error
    try:
        model = table(api.json(url)[0])
    except NotAuthorisedError as refusal:
        if refusal.status != UNAUTHORISED:
            return error
        name = api.settings.endpoints.token_name(url)
        said = f"{error} Whether it is private cannot be told: your {name} is not accepted."
        return type(error)(said, status=error.status)
    except (NotFoundError, OfflineError):
        return error
    return NotAuthorisedError(
        f"{source.shown()}: the model exists ({model.get('visibility', 'visible to you')}), but "
        "Replicate gives out no weights for it here. It may not be a LoRA; if it is yours, "
        "download the weights from the training's page into your loras folder and give the name."
    )
