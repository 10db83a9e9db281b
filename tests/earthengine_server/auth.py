"""The service account's side: a key file for tests, and the token endpoint that grants for it (RFC 7523).

The key is made on the spot and is worth nothing elsewhere.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs

from .errors import EarthEngineError

# Google's client signs for this audience whatever the token endpoint in the key file is.
AUDIENCE = "https://oauth2.googleapis.com/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/earthengine"
EMAIL = "reader@smgeo-test.iam.gserviceaccount.com"


class Tokens:
    """Keys of service accounts, and the tokens that were granted for them."""

    def __init__(self, token_s: float = 3600.0) -> None:
        self.token_s = token_s
        self.keys: dict[str, bytes] = {}
        self._granted: dict[str, float] = {}
        self._lock = threading.Lock()

    def write_key_file(self, path: str | Path, url: str, email: str = EMAIL, project: str = "smgeo-test") -> Path:
        """Makes a key and writes its file, whose token endpoint is this server; the server knows its public half."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self.keys[email] = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        info = {
            "type": "service_account",
            "project_id": project,
            "private_key_id": secrets.token_hex(20),
            "private_key": pem,
            "client_email": email,
            "client_id": "100000000000000000000",
            "auth_uri": f"{url}/auth",
            "token_uri": f"{url}/token",
            "universe_domain": "googleapis.com",
        }
        Path(path).write_text(json.dumps(info, indent=1), encoding="utf-8")
        return Path(path)

    def grant(self, form: str, audience: str) -> dict:
        """A token for a signed grant; an error where grant, signature, audience, time or scope are wrong."""
        from google.auth import jwt

        fields = {k: v[0] for k, v in parse_qs(form).items()}
        if fields.get("grant_type") != GRANT:
            raise EarthEngineError("unsupported_grant_type")
        email = jwt.decode(fields["assertion"], verify=False).get("iss")
        if email not in self.keys:
            raise EarthEngineError("invalid_grant: account not found")
        try:
            claims = jwt.decode(fields["assertion"], certs=self.keys[email], audience=[AUDIENCE, audience])
        except ValueError as error:
            raise EarthEngineError("invalid_grant: Invalid JWT") from error
        if SCOPE not in claims.get("scope", "").split():
            raise EarthEngineError(f"invalid_scope: {SCOPE} is needed")
        token = "ya29.test-" + secrets.token_urlsafe(24)
        with self._lock:
            self._granted[token] = time.monotonic() + self.token_s
        return {"access_token": token, "expires_in": int(self.token_s), "token_type": "Bearer"}

    def check(self, header: str | None, required: bool) -> None:
        """An error (401) for a token that was not granted, has ended, or is missing though required."""
        if header is None and not required:
            return
        with self._lock:
            ends = self._granted.get((header or "").removeprefix("Bearer "), 0.0)
        if ends <= time.monotonic():
            raise EarthEngineError(
                "Request had invalid authentication credentials. Expected OAuth 2 access token.", 401
            )

    def revoke(self) -> None:
        """Every granted token ends."""
        with self._lock:
            self._granted.clear()

    @property
    def granted(self) -> list[str]:
        """Tokens granted so far that have not been revoked."""
        with self._lock:
            return list(self._granted)
