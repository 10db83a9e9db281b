"""Signing in to Earth Engine: which account, by which key, and how the client's requests travel.

Tasks carry an `Access`: the path of a key, never the key. Each process signs in by itself when its first request goes out.
"""

# Google's sign-in has no types.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import json
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from smgeo.errors import SmgeoError, missing_extra
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources.retry import Backoff
from smgeo.threads import within

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from httplib2 import Response

_Account: TypeAlias = tuple[str | None, str | None, str | None]  # project, path of the key, server

SCOPES = ("https://www.googleapis.com/auth/earthengine", "https://www.googleapis.com/auth/cloud-platform")


# The limit that a thread's requests wait for while they are under way (and not while they are written or read), and the
# silence in seconds after which they count as lost.
PASSAGE: ContextVar[tuple[AbstractContextManager[object], float] | None] = ContextVar("PASSAGE", default=None)
_LONGEST_S = 300.0  # Earth Engine stops a computation after five minutes
_MOST_CONNECTIONS = 100


# Attempts to sign in if nothing answers; the wait before the second one, which then doubles.
_SIGN_IN_ATTEMPTS = 3
SIGN_IN_WAIT_S = 1.0
_LONGEST_CONNECT_S = 20.0


class Again(Exception):  # noqa: N818 - a reason to try again, not an error yet
    """An answer that another attempt may improve: too many requests, a fault of the server, a damaged body."""


class NoConnection(Again):
    """Nothing answers at an address."""


@dataclass(frozen=True)
class Access:
    """How to reach Earth Engine, and within which limits. It is part of graphs, so it contains no secret.

    Attributes
    ----------
    project : str or None
        Cloud project; None for the one that the credentials name.
    credentials : str or None
        Path of a key file; None for the credentials that `earthengine authenticate` or gcloud stored on this machine.
    url : str or None
        Server; None for Google's.
    in_flight : int
        Maximum number of requests under way at any time, over all workers.
    budget : int or None
        Maximum number of requests of the build, retries included.
    timeout_s : float
        Silence after which a request counts as lost.
    retries : int
        Attempts after the first.
    build : str
        Name under which requests are counted.
    sent : int
        Requests that were sent before the first task.
    """

    project: str | None = None
    credentials: str | None = None
    url: str | None = None
    in_flight: int = 20
    budget: int | None = None
    timeout_s: float = 300.0
    retries: int = 8
    build: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: int = 0


def find_access(source: EarthEngineSource, root: str | Path) -> Access:
    """Return project and key file of a spec, or of the environment of the process that opens it (workers may have another).

    Raises
    ------
    SmgeoError
        If the key file does not exist.

    Notes
    -----
    A relative path in the spec starts at `root`; one in the environment at the current folder, as in all tools of Google.
    """
    path = _key_file(source, root)
    if path is not None and not path.is_file():
        found = "is a folder; name the key file in it, and" if path.is_dir() else "is not there;"
        raise SmgeoError(
            f"earthengine: the key file {path} {found} correct credentials in the recipe, or "
            "$GOOGLE_APPLICATION_CREDENTIALS, or leave both out and run: earthengine authenticate"
        )
    return Access(
        project=source.project or os.environ.get("EARTHENGINE_PROJECT"),
        credentials=str(path) if path else None,
        url=source.url,
        in_flight=source.requests_in_flight,
        budget=source.budget,
        timeout_s=source.timeout_s,
        retries=source.retries,
    )


def _key_file(source: EarthEngineSource, root: str | Path) -> Path | None:
    if source.credentials:
        return Path(root, os.path.expanduser(source.credentials)).absolute()
    given = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    return Path(os.path.expanduser(given)).absolute() if given else None


def import_ee() -> ModuleType:
    """Import and return the `ee` package, only when it is needed."""
    try:
        import ee
    except ImportError:
        raise missing_extra("Google Earth Engine", "gee") from None
    return ee


_NO_PROJECT = (
    "no Cloud project is named, and Earth Engine counts every request on one. Set project: in the recipe, or "
    "$EARTHENGINE_PROJECT, to the ID of a project that is registered for Earth Engine "
    "(https://console.cloud.google.com/earth-engine)"
)


# Signing in ------------------------------------------------------------------------------------------------------

_signing_in = threading.Lock()
_signed_in: _Account | None = None
_unreached: tuple[_Account, float, str] | None = None  # account, when, message


def connect(access: Access) -> None:
    """Sign this process in, once for an account (the client keeps one account a process).

    Raises
    ------
    Again
        If the server does not answer as it should.
    SmgeoError
        If credentials or project are missing or refused, or nothing answers three times.
    """
    global _signed_in
    account = (access.project, access.credentials, access.url)
    ee, came = import_ee(), time.monotonic()
    from googleapiclient.errors import Error

    with _signing_in:
        if _signed_in == account and ee.data.is_initialized():
            return
        if _unreached and _unreached[0] == account and _unreached[1] > came:  # while this thread waited
            raise SmgeoError(_unreached[2])
        credentials = _load_credentials(access)
        project = access.project or getattr(credentials, "project_id", None) or credentials.quota_project_id
        if not project:
            raise SmgeoError(f"earthengine: {_NO_PROJECT}")
        ee.data.setMaxRetries(0)  # attempts are counted and limited here
        try:
            _reach(
                account,
                lambda: ee.Initialize(credentials, project=project, url=access.url, http_transport=_Transport()),
            )
        except (ee.EEException, Error) as error:
            raise refused(error) from None
        except auth_errors() as error:
            raise not_accepted(access, error) from None
        _signed_in = account


def _reach(account: _Account, sign_in: Callable[[], None]) -> None:
    """Sign in; if nothing answers, retry soon, and stop soon: the machine may be offline."""
    global _unreached
    for attempt in Backoff(_SIGN_IN_ATTEMPTS, SIGN_IN_WAIT_S, math.inf, least=1.0).attempts():
        try:
            return sign_in()
        except NoConnection as error:
            if attempt == _SIGN_IN_ATTEMPTS:
                message = f"earthengine: signing in failed {attempt} times: {error}"
                _unreached = (account, time.monotonic(), message)
                raise SmgeoError(message) from None


def _load_credentials(access: Access) -> Credentials:
    ee = import_ee()
    import google.auth

    try:
        return ee.data.get_persistent_credentials() if access.credentials is None else _read_key(access.credentials)
    except ee.EEException:
        project = "" if access.project else f". Besides, {_NO_PROJECT}; the key of a service account names its own"
        raise SmgeoError(
            "earthengine: no credentials found. Run once: earthengine authenticate; or give credentials: PATH of a service "
            f"account's key file (JSON) in the recipe, or $GOOGLE_APPLICATION_CREDENTIALS{project}"
        ) from None
    except (ValueError, OSError, google.auth.exceptions.GoogleAuthError) as error:
        # The texts of these errors may quote the file.
        raise SmgeoError(
            f"earthengine: {access.credentials} cannot be read as a key file ({type(error).__name__}); download a new key "
            "(JSON) of the service account, or run: earthengine authenticate"
        ) from None


def _read_key(path: str) -> Credentials:
    """Return the credentials of a service account, of a user (`gcloud auth application-default login`), or federated ones."""
    import google.auth
    from google.oauth2 import credentials, service_account

    info = json.loads(Path(path).read_text(encoding="utf-8"))
    kind = info.get("type") if isinstance(info, dict) else None
    if kind == "service_account":
        return service_account.Credentials.from_service_account_info(info, scopes=SCOPES)
    if kind == "authorized_user":
        return credentials.Credentials.from_authorized_user_info(info, scopes=SCOPES)
    return google.auth.load_credentials_from_file(path, scopes=list(SCOPES))[0]


def auth_errors() -> tuple[type[Exception], ...]:
    """Return the errors that Google's sign-in raises."""
    import google.auth.exceptions

    return (google.auth.exceptions.GoogleAuthError,)


def not_accepted(access: Access, error: Exception) -> SmgeoError:
    """Return the error for a failed sign-in, without the text of `error`, which may quote the key."""
    where = access.credentials or "the credentials stored on this machine"
    return SmgeoError(
        f"earthengine: Google did not accept {where} ({type(error).__name__}); the key may be revoked or expired, or the clock "
        "wrong. Create a new key, or run: earthengine authenticate"
    )


def refused(error: Exception) -> SmgeoError:
    """Return the error for a request that the server understood and declined."""
    # The client's own exception lacks the status; the one that caused it has it.
    resp = getattr(error, "resp", None) or getattr(error.__context__, "resp", None)
    status = getattr(resp, "status", None)
    text = str(error)[:400]
    if status in (401, 403):
        return SmgeoError(
            f"earthengine: the account or project was refused ({status}): {text}. Register the project for Earth Engine, and give "
            "the account the roles Earth Engine Resource Viewer and Service Usage Consumer"
        )
    return SmgeoError(f"earthengine: the server refused a request ({status or 'no status'}): {text}")


class _Transport:
    """HTTP transport of the client: with a time limit, a pool wide enough, and answers checked before they are parsed."""

    def __init__(self) -> None:
        import requests

        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=_MOST_CONNECTIONS)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, adapter)

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: str | bytes | None = None,
        headers: dict[str, str] | None = None,
        redirections: int | None = None,
        connection_type: object = None,
    ) -> tuple[Response, bytes]:
        """Return (response, content), as `httplib2.Http.request`."""
        import httplib2
        import requests
        from urllib3.exceptions import MaxRetryError

        try:
            slots, timeout_s = PASSAGE.get() or (nullcontext(), _LONGEST_S)
            patience = (min(timeout_s, _LONGEST_CONNECT_S), timeout_s)
            send = partial(self._session.request, method, uri, data=body, headers=headers, timeout=patience)
            # A request that is given up leaves its place to others, though it may go on: all places could be taken for ever.
            with slots:
                answer = within(sum(patience), send)
        except requests.ConnectionError as error:
            if not isinstance(error.args[0] if error.args else None, MaxRetryError):  # it broke later
                raise Again(f"no complete answer ({type(error).__name__})") from None
            host = urlsplit(uri).netloc.rpartition("@")[2]
            raise NoConnection(f"no connection to {host} ({type(error).__name__}; is this machine online?)") from None
        except (requests.RequestException, TimeoutError) as error:
            raise Again(f"no complete answer ({type(error).__name__})") from None
        status, content = answer.status_code, answer.content
        if status == 429 or status >= 500:
            raise Again(f"HTTP {status}")
        promised = answer.headers.get("Content-Length")
        if promised is not None and "Content-Encoding" not in answer.headers and int(promised) != len(content):
            raise Again(f"{len(content)} bytes of {promised}")
        if status == 200 and content[:64].lstrip()[:1] == b"<":
            raise Again("a web page in place of data")
        return httplib2.Response({**answer.headers, "status": status}), content

    def close(self) -> None:
        """Close all connections."""
        self._session.close()
