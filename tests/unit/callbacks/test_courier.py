"""Whom callbacks may be sent to, and what each answer means. No sockets."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from email.utils import format_datetime

import httpx
import pytest

from tasks.access.outbound import Wall
from tasks.courier import Courier, retry_after
from tasks.errors import CallbackFailed, CallbackRefused, SettingsError, ToolRefused
from tasks.settings import CallbackSettings
from tests.support.build import EPOCH

PUBLIC = "93.184.216.34"
URL = "https://hooks.example.org/done?token=hunter2"


def courier(
    *answers: httpx.Response | Exception, addresses: tuple[str, ...] = (PUBLIC,), **settings: object
) -> tuple[Courier, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        given = answers[len(seen) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    async def resolve(_host: str, _port: int) -> list[str]:
        if not addresses:
            raise OSError
        return list(addresses)

    made = Courier(CallbackSettings(**settings), resolve=resolve, transport=httpx.MockTransport(answer))
    return made, seen


async def post(made: Courier, url: str = URL) -> int:
    return await made.post(url, b"{}", {"webhook-id": "w"}, now=EPOCH)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_success_is_taken(status: int) -> None:
    made, [*_] = courier(httpx.Response(status))
    assert await post(made) == status


async def test_the_call_goes_to_the_address_that_was_checked_and_speaks_as_to_the_name() -> None:
    made, seen = courier(httpx.Response(200))
    await post(made)
    [call] = seen
    assert str(call.url) == f"https://{PUBLIC}/done?token=hunter2"
    assert call.headers["host"] == "hooks.example.org"
    assert call.extensions["sni_hostname"] == "hooks.example.org"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["webhook-id"] == "w"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422, 451])
async def test_what_cannot_mend_is_refused(status: int) -> None:
    made, _ = courier(httpx.Response(status))
    with pytest.raises(CallbackRefused, match=str(status)):
        await post(made)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 408, 409, 425, 429, 500, 502, 503, 504, 599])
async def test_what_may_mend_is_tried_again_and_no_redirect_is_followed(status: int) -> None:
    made, seen = courier(httpx.Response(status, headers={"Location": "http://169.254.169.254/"}))
    with pytest.raises(CallbackFailed, match=str(status)):
        await post(made)
    assert len(seen) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_says_when(status: int) -> None:
    made, _ = courier(httpx.Response(status, headers={"Retry-After": "120"}))
    with pytest.raises(CallbackFailed) as raised:
        await post(made)
    assert raised.value.retry_seconds == 120


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 30 ", 30),
        ("9999999999999", 0),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
        ("٣", 0),
        (format_datetime(EPOCH + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(EPOCH - timedelta(days=1), usegmt=True), 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float) -> None:
    assert retry_after(text, EPOCH) == seconds


@pytest.mark.parametrize("error", [httpx.ConnectError("hunter2"), httpx.ReadTimeout("hunter2"), httpx.ReadError("x")])
async def test_who_does_not_answer_is_tried_again_and_the_url_is_told_to_nobody(error: Exception) -> None:
    made, _ = courier(error)
    with pytest.raises(CallbackFailed) as raised:
        await post(made)
    assert "hunter2" not in str(raised.value)
    assert "hooks.example.org" in str(raised.value)


async def test_a_receiver_that_never_ends_is_left_after_a_while() -> None:
    class Never(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(60)
            raise AssertionError

    made = Courier(CallbackSettings(timeout_seconds=0.05, private_hosts=("10.0.0.1",)), transport=Never())
    with pytest.raises(CallbackFailed, match=r"0\.05 s"):
        await made.post("https://10.0.0.1/", b"{}", {}, now=EPOCH)


async def test_a_name_that_leads_nowhere_may_lead_somewhere_later() -> None:
    made, _ = courier(addresses=())
    with pytest.raises(CallbackFailed, match="does not resolve"):
        await post(made)


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        ("10.0.0.8",),
        ("192.168.1.1",),
        ("169.254.169.254",),
        ("100.64.0.1",),
        ("::1",),
        ("fd00::1",),
        ("::ffff:127.0.0.1",),
        ("0.0.0.0",),
        (PUBLIC, "10.0.0.8"),
    ],
)
async def test_a_name_that_leads_to_an_inner_address_is_refused_before_anything_is_sent(
    addresses: tuple[str, ...],
) -> None:
    made, seen = courier(addresses=addresses)
    with pytest.raises(CallbackRefused, match="not a public address"):
        await post(made)
    assert seen == []


async def test_an_inner_host_that_is_named_is_called() -> None:
    made, seen = courier(httpx.Response(200), addresses=("10.0.0.8",), private_hosts=("hooks.example.org",))
    assert await post(made) == 200
    assert seen[0].url.host == "10.0.0.8"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example.org/", "use https://"),
        ("https://user:pass@hooks.example.org/", "user name"),
        ("ftp://hooks.example.org/", "https://"),
        ("https://localhost/", "callbacks.private_hosts"),
        ("https://127.0.0.1/", "callbacks.private_hosts"),
        ("https://[::1]/", "callbacks.private_hosts"),
        ("https://0x7f000001/", None),
        ("https://hooks.example.org\\@evil.example/", "not a URL"),
        ("https:///path", "no host"),
        ("https://hooks.example.org:99999/", "port"),
    ],
)
def test_a_door_refuses_what_the_url_alone_gives_away(url: str, said: str | None) -> None:
    wall = Wall(CallbackSettings())
    if said is None:
        wall.admit(url)  # a name to us; what it leads to is looked at before the call
        return
    with pytest.raises(ToolRefused, match=said):
        wall.admit(url)


def test_lists_of_hosts_narrow_and_widen() -> None:
    narrow = Wall(CallbackSettings(allowed_hosts=("a.example", "b.example:8443"), private_hosts=("localhost:9000",)))
    for url in ("https://a.example/", "https://b.example:8443/", "https://localhost:9000/"):
        narrow.admit(url)
    for url in ("https://a.example:444/", "https://b.example/", "https://c.example/", "https://localhost/"):
        with pytest.raises(ToolRefused):
            narrow.admit(url)
    Wall(CallbackSettings(allow_http=True)).admit("http://c.example/")
    with pytest.raises(SettingsError, match=r"callbacks\.private_hosts"):
        Wall(CallbackSettings(private_hosts=("https://a.example/",)))


def test_pauses_double_up_to_the_longest() -> None:
    settings = CallbackSettings(retry_seconds=10, max_retry_seconds=100)
    assert [settings.pause(number) for number in (1, 2, 3, 4, 5, 500)] == [10, 20, 40, 80, 100, 100]
    standard = CallbackSettings()
    assert 24 < sum(standard.pause(number) for number in range(1, standard.attempts)) / 3600 < 36
