"""The server as a process of its own, so that it shares no interpreter with what is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server_process(*options: str) -> Iterator[str]:
    """Starts `python -m tests.earthengine_server OPTIONS`, gives its URL, and ends it.

    `server_process("--latency", "0.05", "--in-flight", "20", "--remember")`; what it counted is at URL/counters.
    """
    command = [sys.executable, "-m", "tests.earthengine_server", *options]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the server did not start: {' '.join(command)}")
            yield url
        finally:
            process.stdin.close()
            process.wait(30)
