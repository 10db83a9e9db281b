"""A local server that speaks Earth Engine's REST protocol for a small fixed world.

`Server` runs it on a thread, `python -m tests.earthengine_server` as a process of its own.
"""

from .auth import EMAIL
from .faults import Faults
from .server import Quotas, Server
from .world import World, build_world

__all__ = ["EMAIL", "Faults", "Quotas", "Server", "World", "build_world"]
