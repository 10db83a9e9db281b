"""The words of a command line, checked before any of them is used, and messages that contain them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from smgeo.errors import SmgeoError, shorten

# Characters that are shown of a longer word, such as a path of thousands of characters.
_SHOWN = 300


def check_words(words: Sequence[str]) -> None:
    """Refuse words that no option means: empty ones, those that are not UTF-8, and those with control characters.

    Raises
    ------
    SmgeoError
        With the place of the word. The words of a user's own command, after `--` of `jobscript`, are passed on as they are.
    """
    own = words.index("--") if "jobscript" in words and "--" in words else len(words)
    for place, word in enumerate(words[:own], 1):
        value = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        shown = shortened(repr(word))
        if not value.strip():
            raise SmgeoError(
                f"argument {place} is empty ({shown}): is a variable of your shell not set? Leave the option out to use its default"
            )
        if any(0xD800 <= ord(c) <= 0xDFFF for c in word):
            raise SmgeoError(
                f"argument {place} is not UTF-8 ({shown}); the libraries that read and write files need that, so rename the file"
            )
        if any(unicodedata.category(c) == "Cc" for c in word):
            raise SmgeoError(
                f"argument {place} has a control character or a new line in it ({shown}); rename the file, or correct the word"
            )


def shortened(text: str) -> str:
    """Return a text whose words of more than 300 characters are cut."""
    return shorten(text, _SHOWN)
