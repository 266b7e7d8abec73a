import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from handlers.http.jwt import Bearer
from tasks.errors import NotReady, Unauthenticated
from tasks.settings import JwtSettings
from tests.support import issuer
from tests.support.issuer import KEY

ISSUER = "https://login.example"
SETTINGS = JwtSettings(issuer=ISSUER, audience="sluice", roles_claim="realm.roles")
OTHER = generate_private_key(public_exponent=65537, key_size=2048)


class Issuer:
    """An OpenID Connect issuer that publishes ``keys``."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"k1": KEY.public_key()}
        self.calls: list[str] = []
        self.is_away = False
        self.seconds = 0.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request.url.path)
        if self.is_away:
            return httpx.Response(500)
        if request.url.path.endswith("openid-configuration"):
            return httpx.Response(200, json={"jwks_uri": f"{ISSUER}/keys"})
        return httpx.Response(200, json=issuer.jwks(self.keys))

    def bearer(self, settings: JwtSettings = SETTINGS) -> Bearer:
        return Bearer(settings, httpx.AsyncClient(transport=httpx.MockTransport(self)), lambda: self.seconds)


def token(key: Any = KEY, **claims: Any) -> str:
    """Return a token of this issuer, with roles where the settings look for them."""
    return issuer.token(key, **{"iss": ISSUER, "roles": None, "realm": {"roles": ["user"]}, **claims})


async def test_a_token_says_who_calls() -> None:
    who = await Issuer().bearer()(token())
    assert (who.caller.subject, who.caller.roles, who.tenant) == ("alice", ("user",), "acme")


async def test_roles_may_be_one_text() -> None:
    who = await Issuer().bearer()(token(realm={"roles": "user auditor"}))
    assert who.caller.roles == ("user", "auditor")


CONFUSED: dict[str, Callable[[], str | None]] = {
    "none": lambda: None,
    "basic": lambda: "Basic YTpi",
    "junk": lambda: "Bearer junk",
    "no kid": lambda: token(kid=None),
    "unknown kid": lambda: token(kid="k9"),
    "another key": lambda: token(Ed25519PrivateKey.generate()),
    "another algorithm": lambda: token(OTHER, algorithm="RS256"),
    "symmetric": lambda: token("x" * 64, algorithm="HS512"),
    "unsigned": lambda: token(None, algorithm="none"),
    "expired": lambda: token(exp=time.time() - 3600),
    "no expiry": lambda: token(exp=None),
    "no subject": lambda: token(sub=None),
    "audience": lambda: token(aud="another"),
    "issuer": lambda: token(iss="https://evil.example"),
    "not yet": lambda: token(nbf=time.time() + 3600),
    "no tenant": lambda: token(tenant=None),
    "tenant is none": lambda: token(tenant=7),
    "no roles": lambda: token(realm=None),
    "roles are none": lambda: token(realm={"roles": [1]}),
}


@pytest.mark.parametrize("make", CONFUSED.values(), ids=CONFUSED)
async def test_what_does_not_hold_is_nobody(make: Callable[[], str | None]) -> None:
    with pytest.raises(Unauthenticated, match="authorization"):
        await Issuer().bearer()(make())


async def test_keys_are_fetched_once_an_hour() -> None:
    here = Issuer()
    bearer = here.bearer()
    for _ in range(3):
        await bearer(token())
    assert len(here.calls) == 2
    here.seconds += 3601
    await bearer(token())
    assert len(here.calls) == 4


async def test_a_new_key_is_fetched_and_not_at_every_junk_token() -> None:
    here = Issuer()
    bearer = here.bearer(SETTINGS.changed(jwks_url=f"{ISSUER}/keys"))
    await bearer(token())
    here.keys["k2"] = OTHER.public_key()
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await bearer(token(OTHER, kid="k2", algorithm="RS256"))
    assert len(here.calls) == 1  # too soon
    here.seconds += 31
    assert (await bearer(token(OTHER, kid="k2", algorithm="RS256"))).tenant == "acme"


async def test_while_the_issuer_is_away_known_keys_hold_and_nobody_gets_in_without() -> None:
    here = Issuer()
    bearer = here.bearer()
    here.is_away = True
    with pytest.raises(NotReady, match=r"login\.example"):
        await bearer(token())
    here.is_away = False
    await bearer(token())
    here.is_away = True
    here.seconds += 4000
    assert (await bearer(token())).tenant == "acme"
