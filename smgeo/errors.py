"""The two messages that a user can act on: an error and a warning."""

from __future__ import annotations

import difflib
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import NoReturn

from smgeo.addresses import hide


class SmgeoError(ValueError):
    """Bad input that the user can fix.

    The message is one paragraph: what was found, what was needed, where (file, variable, recipe key), and
    what to do next. The command line prints it without a traceback. Addresses in it have no password and no query.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_shown(message))


class DivergedError(SmgeoError):
    """Training left the finite numbers, so there is no model; other models are not affected."""


class SmgeoWarning(UserWarning):
    """Something was left out or replaced; the message names it and counts it. Addresses as in `SmgeoError`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(_shown(message))


def _shown(message: object) -> str:
    """Return a message that can be printed: without secrets and control characters, and with words of up to 1,000 letters."""
    return shorten(printable(hide(str(message))), 1000)


def shorten(text: str, most: int) -> str:
    """Return a text whose words of more than `most` characters, such as a path of thousands of them, are cut in their middle.

    >>> shorten("see abcdefgh now", 4)
    'see ab…gh now'
    """
    half = most // 2
    return re.sub(rf"\S{{{most + 1},}}", lambda word: f"{word[0][:half]}…{word[0][-half:]}", text)


# Characters that turn the direction of what follows them, so that a text reads as another.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""Return a text whose control characters, which a terminal would obey, are written out; new lines and tabs stay.

    >>> printable("a\x1b[31mb\n"), printable("a\u202eb")
    ('a\\x1b[31mb\n', 'a\\u202eb')
    """
    return "".join(_written_out(c) if _is_obeyed(c) else c for c in text)


def _is_obeyed(character: str) -> bool:
    return character not in "\n\t" and (unicodedata.category(character) in ("Cc", "Cs") or character in _TURNS)


def _written_out(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint with the known name closest to `name`, or with all known names.

    >>> nearest("modles", ["models", "maps"])
    "did you mean 'models'?"
    >>> nearest("xyz", ["models", "maps"])
    'known: maps, models'
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def missing_extra(feature: str, extra: str) -> SmgeoError:
    """Return the error for an optional dependency that is not installed."""
    return SmgeoError(
        f"{feature} needs an optional dependency that is not installed. Install it with: pip install 'smgeo[{extra}]'"
    )


def end_before_start() -> NoReturn:
    """End the command line that Ctrl-C reached while it was being imported."""
    print("smgeo: interrupted before it began; nothing was done", file=sys.stderr)
    raise SystemExit(130) from None
