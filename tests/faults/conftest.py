from fetch.world import clock, server, services, world
from hypothesis import settings

__all__ = ["clock", "server", "services", "world"]

# A loaded machine is slow now and then; that is no failure.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
