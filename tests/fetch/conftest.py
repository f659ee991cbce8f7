from fetch.world import clock, server, services, world

__all__ = ["clock", "server", "services", "world"]
