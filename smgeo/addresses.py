"""Addresses of files and servers, and the secrets in them: a query may be a signature, and a user's password may stand before the host.

A recipe names a secret, `${SMGEO_SECRET_NAME}`, which is an environment variable. It is filled in where a file is opened and nowhere else,
so that graphs, stores, reports and messages have its name.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

_PREFIX = "SMGEO_SECRET_"
_NAME = re.compile(r"\$\{(" + _PREFIX + r"[A-Z0-9_]+)\}")
_ANY = re.compile(r"\$\{[^}]*\}?")
# The parts of an address in a text: scheme, user and password, host and path, query.
_IN_TEXT = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/?#@'\"<>]*@)?(?P<path>[^\s?#'\"<>]*)(?P<query>\?[^\s'\"<>]*)?"
)
_SHORTEST = 4  # characters of a secret that is looked for in texts


class MissingSecretError(LookupError):
    """An environment variable that an address names is not set."""


def is_remote(href: str) -> bool:
    """Return True if a name is a URL.

    >>> is_remote("https://example.org/a.tif"), is_remote("a.tif")
    (True, False)
    """
    return "://" in href or href.startswith("/vsi")


def plain(href: str) -> str:
    """Return a URL for messages: without user, password and query.

    >>> plain("https://me:word@example.org/a.tif?sig=secret")
    'https://example.org/a.tif'
    """
    if href.startswith("/vsicurl?"):  # GDAL's form for requests with options
        href = unquote(href.split("url=", 1)[-1])
    if not is_remote(href):
        return href
    return _IN_TEXT.sub(lambda m: m["scheme"] + m["path"], href).split("?", 1)[0]


def hide(text: str) -> str:
    """Return a text for people and files: its addresses without users, passwords and queries, and no secret of the environment.

    >>> hide("https://me:word@example.org/a.tif?sig=secret is no raster")
    'https://example.org/a.tif?... is no raster'
    """
    if "://" in text:
        text = _IN_TEXT.sub(lambda m: m["scheme"] + m["path"] + ("?..." if m["query"] else ""), text)
    for name, value in os.environ.items():
        if name.startswith(_PREFIX) and len(value) >= _SHORTEST:
            text = text.replace(value, f"${{{name}}}")
    return text


def hide_in_logs(*loggers: str) -> None:
    """Let the loggers of libraries that are given addresses with secrets log them as `hide` returns them."""

    def clean(record: logging.LogRecord) -> bool:
        record.msg, record.args = hide(record.getMessage()), ()
        return True

    for name in loggers:
        logging.getLogger(name).addFilter(clean)


def with_secrets(href: str) -> str:
    """Return an address with the values of the variables that its password or query names; only to open it.

    Raises
    ------
    MissingSecretError
        If one is not set.
    """
    if not is_remote(href) or "${" not in href:
        return href

    def value(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise MissingSecretError(f"{plain(href)}: the environment variable {match[1]} is not set") from None

    parts = urlsplit(href)
    user, _, host = parts.netloc.rpartition("@")
    filled = parts._replace(
        netloc=f"{_NAME.sub(value, user)}@{host}" if user else host, query=_NAME.sub(value, parts.query)
    )
    return filled.geturl()


def find_address_faults(href: str) -> Iterator[str]:
    """Return what an address in a recipe may not have: a run keeps its recipe, and may not keep a secret."""
    if not is_remote(href):
        return
    found = re.search(_IN_TEXT, href)
    user, path, query = (found["user"] or "", found["path"], found["query"] or "") if found else ("", href, "")
    where = plain(href)
    _, colon, password = user.rstrip("@").partition(":")
    if colon and not _NAME.fullmatch(password):
        yield f"{where}: a password may not stand in a recipe, which a run keeps; write user:${{{_PREFIX}NAME}}@ and set that environment variable"
    if query and not all(_NAME.fullmatch(p.partition("=")[2] or p) for p in query[1:].split("&")):
        yield (
            f"{where}: a query may be a secret, and a run keeps its recipe; write ?${{{_PREFIX}NAME}} and set that environment variable "
            "to what follows ?"
        )
    if (
        _ANY.search(path)
        or _ANY.search(user.partition(":")[0])
        or any(not _NAME.fullmatch(n) for n in _ANY.findall(user + query))
    ):
        yield f"{where}: only ${{{_PREFIX}NAME}} is filled in, and only in the password or the query of an address"
    for name in _NAME.findall(user + query):
        if name not in os.environ:
            yield f"{where}: the environment variable {name} is not set"
