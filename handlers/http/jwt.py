"""Who calls: bearer tokens of an OpenID Connect issuer, checked against the keys that it publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import httpx
import jwt
from jwt import PyJWK, PyJWKSet

from tasks.access.gate import Caller
from tasks.errors import NotReady, Unauthenticated
from tasks.settings import JwtSettings

_KEEP_SECONDS: Final = 3600.0
_AGAIN_SECONDS: Final = 30.0
"""A token that names an unknown key has the keys fetched again, and no more often than this."""
_TIMEOUT_SECONDS: Final = 5.0
_MAX_BYTES: Final = 512 * 1024


class Principal(NamedTuple):
    """Who calls, and for which tenant."""

    caller: Caller
    tenant: str


class Authenticator(Protocol):
    """Says who calls, by the ``Authorization`` header."""

    async def __call__(self, authorization: str | None) -> Principal:
        """Return who calls.

        Raises:
            Unauthenticated: the header carries nothing that holds.
            NotReady: it could not be checked.
        """


class Local:
    """Everybody is whom the local key stands for. For a server that only this machine reaches."""

    def __init__(self, caller: Caller, tenant: str) -> None:
        self._principal = Principal(caller, tenant)

    async def __call__(self, authorization: str | None) -> Principal:
        """See :class:`Authenticator`."""
        return self._principal


class Bearer:
    """Verifies tokens by the issuer's keys, which are kept for an hour. Use it on one event loop."""

    def __init__(self, settings: JwtSettings, client: httpx.AsyncClient, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds that never go back."""
        self._settings = settings
        self._client = client
        self._clock = clock
        self._keys: dict[str, PyJWK] = {}
        self._fetched: float | None = None
        self._fetching = asyncio.Lock()

    async def __call__(self, authorization: str | None) -> Principal:
        """See :class:`Authenticator`."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("authorization: send a token as 'Bearer …'")
        try:
            head = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise Unauthenticated("authorization: is not a JSON Web Token") from error
        key = await self._key(head.get("kid"))
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(settings.algorithms),
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(f"authorization: {error}") from error
        return self._principal(claims)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        tenant, roles = _claim(claims, self._settings.tenant_claim), _claim(claims, self._settings.roles_claim)
        if not isinstance(tenant, str) or not tenant:
            raise Unauthenticated(f"authorization: the token has no tenant in {self._settings.tenant_claim!r}")
        if isinstance(roles, str):
            roles = roles.split()
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise Unauthenticated(f"authorization: the token has no list of roles in {self._settings.roles_claim!r}")
        return Principal(Caller(claims["sub"], tuple(roles)), tenant)

    async def _key(self, kid: object) -> PyJWK:
        if not isinstance(kid, str):
            raise Unauthenticated("authorization: the token names no key (kid)")
        if self._is_due(_KEEP_SECONDS) or (kid not in self._keys and self._is_due(_AGAIN_SECONDS)):
            async with self._fetching:
                if self._is_due(_AGAIN_SECONDS):
                    await self._fetch()
        try:
            return self._keys[kid]
        except KeyError:
            raise Unauthenticated(f"authorization: the issuer has no key {kid!r}") from None

    def _is_due(self, seconds: float) -> bool:
        return self._fetched is None or self._clock() - self._fetched > seconds

    async def _fetch(self) -> None:
        try:
            url = self._settings.jwks_url or (await self._json(_discovery(self._settings.issuer)))["jwks_uri"]
            found = PyJWKSet.from_dict(await self._json(url))
        except (httpx.HTTPError, jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            if self._keys:
                self._fetched = self._clock()  # those that are known still hold
                return
            raise NotReady(f"http.jwt: the keys of {self._settings.issuer} were not to be had: {error}") from error
        self._keys = {key.key_id: key for key in found.keys if key.key_id}
        self._fetched = self._clock()

    async def _json(self, url: str) -> dict[str, Any]:
        answer = await self._client.get(url, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        if len(answer.content) > _MAX_BYTES:
            raise ValueError(f"{url} answers more than {_MAX_BYTES} bytes")
        found = answer.json()
        if not isinstance(found, dict):
            raise ValueError(f"{url} answers no object")  # noqa: TRY004  as every answer that is none
        return found


def _discovery(issuer: str) -> str:
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def _claim(claims: dict[str, Any], path: str) -> Any:
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found
