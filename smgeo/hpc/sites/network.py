"""Addresses and ports by which other nodes reach this one."""

from __future__ import annotations

import socket

import psutil

from smgeo.errors import SmgeoError
from smgeo.hpc.sites.profile import NetworkSpec

# Below the ports that Linux assigns automatically (32768 and up), and above those of services.
_FIRST_PORT, _PORTS = 20_000, 12_000


def find_address(network: NetworkSpec) -> str:
    """Return the IP address of this node by the rule of its site.

    Raises
    ------
    SmgeoError
        If the interface or the name in the rule does not exist.
    """
    if network.interface:
        found = psutil.net_if_addrs().get(network.interface)
        if found is None:
            raise SmgeoError(
                f"network.interface {network.interface!r} is not on {socket.gethostname()}; it has {', '.join(psutil.net_if_addrs())}"
            )
        for address in found:
            if address.family == socket.AF_INET:
                return str(address.address)
        raise SmgeoError(f"network.interface {network.interface!r} of {socket.gethostname()} has no IPv4 address")
    name = socket.gethostname().split(".")[0] + network.host_suffix if network.host_suffix else socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        if network.host_suffix:
            raise SmgeoError(
                f"network.host_suffix {network.host_suffix!r}: {name} has no address here; correct it in the site's profile"
            ) from None
        return _route()
    return address if not address.startswith("127.") else _route()


def _route() -> str:
    """Return the address from which packets leave: Debian maps a machine's own name to 127.0.1.1. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:  # no route: a machine without a network
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def port_of_job(job_id: int, address: str) -> int:
    """Return a free port; two jobs on a node start to look for one at different ports."""
    for step in range(_PORTS):
        port = _FIRST_PORT + (job_id * 17 + step) % _PORTS
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise SmgeoError(f"no port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS} is free on {address}")
