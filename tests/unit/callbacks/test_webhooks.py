"""What callbacks are signed with, and that others verify it."""

from __future__ import annotations

import base64
import hmac
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.access.webhooks import headers, load_masters, secret_of, spelt
from tasks.errors import NotReady, SettingsError
from tasks.settings import CallbackSettings

MASTER = "m" * 32


def test_the_published_example_of_standard_webhooks_comes_out() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (made["webhook-id"], made["webhook-timestamp"]) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")


@given(st.text(max_size=20), st.integers(0, 2**40), st.binary(max_size=50), st.binary(min_size=1, max_size=40))
def test_id_time_and_body_are_signed(name: str, moment: int, body: bytes, secret: bytes) -> None:
    [signature] = headers(name, moment, body, [secret])["webhook-signature"].split(" ")
    said = f"{name}.{moment}.".encode() + body
    assert signature == "v1," + base64.b64encode(hmac.new(secret, said, "sha256").digest()).decode()


def test_while_a_secret_is_replaced_both_sign() -> None:
    old, new = (headers("i", 1, b"{}", [secret])["webhook-signature"] for secret in (b"old", b"new"))
    assert headers("i", 1, b"{}", [b"new", b"old"])["webhook-signature"] == f"{new} {old}"


def test_each_tenant_has_a_secret_of_its_own() -> None:
    secrets = {spelt(secret_of(MASTER.encode(), tenant)) for tenant in ("acme", "acme2", "default")}
    assert len(secrets) == 3
    assert all(secret.startswith("whsec_") and len(base64.b64decode(secret[6:])) == 32 for secret in secrets)


def test_secrets_come_from_files_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{'f' * 32}\n")
    settings = CallbackSettings(secrets=(str(file), "env:OTHER"))
    assert load_masters(settings, environ={"OTHER": MASTER}) == (b"f" * 32, MASTER.encode())
    assert load_masters(CallbackSettings()) == ()


def test_a_secret_that_is_short_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"callbacks\.secrets\.0"):
        load_masters(CallbackSettings(secrets=("env:S",)), environ={"S": "short"})


@pytest.mark.parametrize("source", ["0pen-secret-in-the-wrong-place", "{hunter2}", "env:NOT_SET", "gopher://hunter2"])
def test_what_cannot_be_read_is_named_by_its_number_and_never_repeated(source: str) -> None:
    with pytest.raises(NotReady, match=r"callbacks\.secrets\.0") as raised:
        load_masters(CallbackSettings(secrets=(source,)), environ={})
    assert source not in str(raised.value)
    assert raised.value.__suppress_context__


def test_the_receiver_on_the_page_takes_ours_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path("docs/callbacks.md").read_text("utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {}
    exec(code, found)
    secrets = [secret_of(master, "acme") for master in (b"n" * 32, b"o" * 32)]
    made = headers("acme/order-7.r1", 1_900_000_000, b"{}", secrets)
    monkeypatch.setattr(time, "time", lambda: 1_900_000_010)
    for secret in secrets:
        assert found["check"](spelt(secret), made, b"{}")
    assert not found["check"](spelt(secret_of(b"n" * 32, "other")), made, b"{}")
    assert not found["check"](spelt(secrets[0]), made, b"{ }")
    assert not found["check"](spelt(secrets[0]), {**made, "webhook-id": "acme/order-8.r1"}, b"{}")
    monkeypatch.setattr(time, "time", lambda: 1_900_000_400)
    assert not found["check"](spelt(secrets[0]), made, b"{}")
