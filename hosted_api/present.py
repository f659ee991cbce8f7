"""Jobs as answers: with the addresses of their pictures, of themselves, and of their stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from . import views
from .job import COG, Job, Status
from .links import Links
from .outputs import Outputs

STREAM_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True)
class Presenter:
    """Knows the addresses.

    Attributes:
        links: signs them.
        outputs: has the pictures.
        base: gives the public address of this server, without a slash at its end.
    """

    links: Links
    outputs: Outputs
    base: Callable[[], str]

    def view(self, job: Job, *, listed: bool = False) -> views.Json:
        """Return a job as the hosted model's API shows it.

        Args:
            job: the job.
            listed: it is one of many, so its pictures are links.
        """
        start = f"{self.base()}/v1/predictions/{job.id}"
        stream = self.links.sign(f"/v1/stream/{job.id}", STREAM_SECONDS)
        urls = {
            "get": start,
            "cancel": f"{start}/cancel",
            "web": f"{self.base()}/?prediction={job.id}",
            "stream": f"{self.base()}{stream}",
        }
        return views.hosted(job, self.addresses(job, listed=listed), urls)

    def waited(self, job: Job) -> views.Json:
        """Return the answer to a call that waited: an end, or `starting`.

        Clients take any other status for an end.
        """
        return self.view(job if job.status.ended else replace(job, status=Status.QUEUED))

    def cog(self, job: Job) -> views.Json:
        """Return a job as a Cog container shows it."""
        return views.cog(job, self.addresses(job))

    def told(self, job: Job) -> views.Json:
        """Return a job as its webhook is told of it: in the form of the API that took it."""
        if job.source != COG:
            return self.view(job)
        return {**self.cog(job), "input": job.input}

    def addresses(self, job: Job, *, listed: bool = False) -> list[str]:
        """Return the addresses of a job's pictures."""
        return self.outputs.addresses(job, listed=listed) if job.files else []
