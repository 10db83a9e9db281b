"""A local server that speaks Earth Engine's REST protocol for a small fixed world.

    with Server(build_world(days=4, half_hours=4)) as server:   # on a thread of this process
        key = server.write_key_file(tmp_path / "key.json")      # a service account whose token endpoint is the server
        ee.Initialize(ee.ServiceAccountCredentials(EMAIL, str(key)), project="p", url=server.url)

    with server_process("--latency", "0.05", "--remember") as url: ...   # a process of its own

Truth: `server.world.stored[image_id][band]` (NumPy arrays with their projection; `value(lon, lat)`), properties in
`server.world.images[image_id]`. More images: `build_world(places=[Place(...)], days=...)`, or
`world.add(id, {band: Stored(...)}, properties)` and `world.collect(collection_id)`. What was asked: `server.counters`.
Misbehaviour: `server.faults = Faults(0.2, seed=1)`, or `server.faults.fail_next("429", "hang")`.

What the functions do follows Earth Engine's documents, named in each docstring. Where those are silent, the stricter
reading is taken: bilinear and bicubic values need all pixels with weight to be valid; results of arithmetic have the
default projection of the first image and none of its metadata but the index; levels of pyramids are chosen by nominal
scale; edges of geometries are straight in degrees.
"""

from .auth import EMAIL
from .faults import Faults
from .process import server_process
from .server import Quotas, Server
from .world import Place, Stored, World, build_world

__all__ = ["EMAIL", "Faults", "Place", "Quotas", "Server", "Stored", "World", "build_world", "server_process"]
