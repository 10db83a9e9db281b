"""The server as a process: prints its URL on the first line, and answers until its standard input ends or it is killed."""

from __future__ import annotations

import argparse
import sys

from .faults import KINDS, Faults
from .server import Quotas, Server
from .world import build_world


def main() -> None:
    """`python -m tests.earthengine_server --latency 0.05 --in-flight 20`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that a request takes at least")
    parser.add_argument("--in-flight", type=int, default=40, help="requests at one time; more get a 429")
    parser.add_argument("--per-minute", type=int, default=6000, help="requests in a minute; more get a 429")
    parser.add_argument("--days", type=int, default=10, help="days of the world from 2021-06-01")
    parser.add_argument("--half-hours", type=int, default=48, help="IMERG images a day")
    parser.add_argument("--fault-share", type=float, default=0.0)
    parser.add_argument("--fault-kinds", nargs="*", default=KINDS[:-1], choices=KINDS)
    parser.add_argument("--hang", type=float, default=30.0, help="longest hang, seconds")
    parser.add_argument("--remember", action="store_true", help="evaluate each body once, for benchmarks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key", help="where to write a service account's key file; tokens are then required")
    given = parser.parse_args()
    server = Server(
        build_world(days=given.days, half_hours=given.half_hours),
        latency_s=given.latency,
        require_token=given.key is not None,
        quotas=Quotas(in_flight=given.in_flight, per_minute=given.per_minute),
        faults=Faults(given.fault_share, given.seed, given.fault_kinds, given.hang),
        remember=given.remember,
        port=given.port,
    )
    if given.key:
        server.write_key_file(given.key)
    with server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
