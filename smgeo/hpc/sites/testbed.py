"""Start and stop a SLURM on one machine, with its own folder and ports and without a system service."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from smgeo.errors import SmgeoError
from smgeo.hpc.sites.templates import fill_template

FOLDER = Path("~/.cache/smgeo/testbed")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo", "scancel", "scontrol")
# Debian puts daemons into folders that a user's PATH lacks.
_SYSTEM_PATH = "/usr/sbin:/sbin"
_CONFIG, _GPUS_CONFIG = "slurm.conf", "gres.conf"
# A GPU of SLURM's is a device; these are on every Linux.
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
_START_S, _STOP_S = 30, 30


def start_testbed(
    folder: str | Path = FOLDER, nodes: int = 2, cpus: int = 4, memory_mb: int = 8192, gpus: int = 0
) -> Path:
    """Start SLURM with several nodes on this machine, and return the path of its `slurm.conf`, for `SLURM_CONF`.

    Parameters
    ----------
    folder : str or Path
        Folder for everything that it writes; the folder of a stopped testbed is reused, and job numbers continue.
    nodes : int
        Number of nodes `n1`, `n2`, ...; the name of each is one of its features (`--constraint`), and `testbed` is one of all.
    cpus, memory_mb : int
        Resources of each node, as SLURM counts them; the machine may have less, because nothing enforces them.
    gpus : int
        GPUs of each node in SLURM's books, of type `fake`, at most 4: jobs ask for them and are given them, but there are none.

    Raises
    ------
    SmgeoError
        If SLURM is not installed, one is running in the folder already, or it does not start.
    """
    folder = Path(os.path.expanduser(folder)).absolute()
    _check(folder, nodes, cpus, memory_mb, gpus)
    for part in ("state", *(f"n{i + 1}/spool" for i in range(nodes))):
        (folder / part).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    key = folder / "munge.key"
    if not key.exists():
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
    ports = _free_ports(nodes + 1)
    values = {
        "host": socket.gethostname().split(".")[0],
        "user": getpass.getuser(),
        "folder": folder,
        "cpus": cpus,
        "memory_mb": memory_mb,
        "gpus": _DEVICES[:gpus],
        "ctld_port": ports[0],
        "nodes": [{"name": f"n{i + 1}", "port": p} for i, p in enumerate(ports[1:])],
    }
    config = folder / _CONFIG
    for file in (_CONFIG, _GPUS_CONFIG):
        (folder / file).write_text(fill_template(f"testbed/{file}.j2", values), encoding="utf-8")
    environment = {**_environment(), "SLURM_CONF": str(config)}
    munge = [
        f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("key-file", "pid-file", "log-file", "seed-file")
    ]
    try:
        _call(["munged", "--force", f"--socket={folder}/munge.socket", *munge], environment)
        _call(["slurmctld", "-f", str(config)], environment)
        for node in values["nodes"]:  # type: ignore[attr-defined]
            _call(["slurmd", "-f", str(config), "-N", node["name"]], environment)
        wanted = [node["name"] for node in values["nodes"]]  # type: ignore[attr-defined]
        _wait(lambda: set(wanted) <= set(_idle_nodes(environment)), _START_S, "its nodes to be idle", folder)
    except BaseException:
        stop_testbed(folder)
        raise
    return config


def stop_testbed(folder: str | Path = FOLDER) -> bool:
    """Cancel all jobs and end all processes of a testbed, by their pids; return True if any was running."""
    folder = Path(os.path.expanduser(folder)).absolute()
    daemons = _daemons(folder)
    config = folder / _CONFIG
    if any(d.name().startswith("slurmctld") for d in daemons):
        environment = {**_environment(), "SLURM_CONF": str(config)}
        _cancel_jobs(environment)
    for daemon in daemons:
        daemon.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(daemons, _STOP_S)
    for daemon in alive:
        daemon.kill()
    psutil.wait_procs(alive, _STOP_S)
    return bool(daemons)


def _check(folder: Path, nodes: int, cpus: int, memory_mb: int, gpus: int) -> None:
    lacking = [p for p in _PROGRAMS if shutil.which(p, path=_environment()["PATH"]) is None]
    if lacking:
        raise SmgeoError(
            f"the testbed needs SLURM, and {', '.join(lacking)} is not installed; on Debian and Ubuntu: "
            "sudo apt install slurm-wlm munge"
        )
    for name, value in (("nodes", nodes), ("cpus", cpus), ("memory_mb", memory_mb)):
        if value < 1:
            raise SmgeoError(f"testbed: {name} must be 1 or more; got {value}")
    if not 0 <= gpus <= len(_DEVICES):
        raise SmgeoError(f"testbed: gpus must be from 0 to {len(_DEVICES)}; got {gpus}")
    if any(c.isspace() or c in "#\"'," for c in str(folder)):
        raise SmgeoError(
            f"testbed: SLURM cannot read a path with spaces, quotes, '#' or ','; give another folder than {folder}"
        )
    if len(f"{folder}/munge.socket") > 100:
        raise SmgeoError(f"testbed: the path {folder} is too long for a socket; give a shorter folder")
    if _daemons(folder):
        raise SmgeoError(
            f"a testbed is running in {folder}; use it (export SLURM_CONF={folder / _CONFIG}), or stop it first"
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}"}


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _call(command: Sequence[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603 - no shell
    if done.returncode:
        raise SmgeoError(
            f"testbed: {command[0]} failed ({done.returncode}): {(done.stderr or done.stdout).strip()[-500:]}"
        )
    return done.stdout


def _idle_nodes(environment: dict[str, str]) -> list[str]:
    try:
        rows = _call(["sinfo", "--noheader", "--Node", "--format=%N %t"], environment).splitlines()
    except SmgeoError:  # the controller does not answer yet
        return []
    return [name for name, state in (row.split() for row in rows) if state == "idle"]


def _cancel_jobs(environment: dict[str, str]) -> None:
    try:
        _call(["scancel", "--user", getpass.getuser()], environment)
        end = time.monotonic() + _STOP_S
        while (
            _call(["squeue", "--noheader", "--states=RUNNING,COMPLETING,CONFIGURING"], environment).strip()
            and time.monotonic() < end
        ):
            time.sleep(0.2)
    except SmgeoError:  # a controller that does not answer is ended anyway
        return


def _wait(ready: Callable[[], bool], seconds: float, what: str, folder: Path) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise SmgeoError(
                f"testbed: waited {seconds:g} s for {what}; see slurmctld.log and n*/slurmd.log in {folder}"
            )
        time.sleep(0.2)


def _daemons(folder: Path) -> list[psutil.Process]:
    """Return its running processes, from its pid files; SLURM's first, because they communicate through munge."""
    files = [*sorted(folder.glob("n*/slurmd.pid")), folder / "slurmctld.pid", folder / "munge.pid"]
    found = []
    for file in files:
        try:
            process = psutil.Process(int(file.read_text()))
            if any(str(folder) in word for word in process.cmdline()):  # else the number belongs to another process now
                found.append(process)
        except (OSError, ValueError, psutil.Error):
            continue
    return found
