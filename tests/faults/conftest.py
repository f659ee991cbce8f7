from fetch.world import clock, server, world

__all__ = ["clock", "server", "world"]
