"""Run SLURM's programs, whose controller may answer late or not at all."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence

from smgeo.errors import SmgeoError

# Seconds in which a program must end.
_ANSWER_S = 120
# Messages of a controller that is busy, and the seconds before a question is asked again.
LATE = ("Socket timed out", "Unable to contact slurm controller", "Connection timed out")
_WAITS_S = (2, 10)


def run_slurm(
    command: Sequence[str], text: str | None = None, environment: Mapping[str, str] | None = None, *, again: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program of SLURM and return what it said.

    Parameters
    ----------
    command : sequence of str
        Program and its arguments.
    text : str, optional
        Its standard input.
    environment : mapping, optional
        Its environment; that of this process by default.
    again : bool
        Ask again, twice, while the controller is busy. Not for what must happen once, as the submission of a job.

    Raises
    ------
    SmgeoError
        If it does not end in time.
    FileNotFoundError
        If there is no such program.
    """
    for wait in (*(_WAITS_S if again else ()), None):
        try:
            done = subprocess.run(  # noqa: S603 - no shell
                list(command), input=text, env=environment, capture_output=True, text=True, timeout=_ANSWER_S
            )
        except subprocess.TimeoutExpired:
            raise SmgeoError(
                f"{' '.join(command)} got no answer from SLURM within {_ANSWER_S} s{'; try again later' if again else ''}"
            ) from None
        if wait is None or not done.returncode or not any(words in done.stderr for words in LATE):
            break
        time.sleep(wait)
    return done
