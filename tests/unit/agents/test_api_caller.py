"""The API caller past its wall: redirects, retries, secrets, and what an unanswered call counts for. No sockets."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tasks.agents.tools.api_caller import ApiArguments, ApiCaller
from tasks.agents.tools.base import Effect, ToolContext
from tasks.errors import SettingsError, ToolError, ToolRefused, ToolUnavailable, ToolUncertain
from tasks.settings import ApiToolSettings
from tasks.settings_load import parse

KEY = ToolContext(idempotency_key="k1")
SECRET = 's3cr"et/token'


async def resolve(host: str, port: int) -> list[str]:
    return ["93.184.216.34"]


def response(status: int, body: str = "", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, stream=httpx.ByteStream(body.encode()))


class Service:
    """Answers in turn, and remembers what was asked."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]) -> None:
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    def caller(self, **settings: object) -> ApiCaller:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        standard = {"allowed_hosts": ["a.example", "b.example"], "allowed_methods": ["GET", "HEAD", "POST", "PUT"]}
        return ApiCaller(
            parse(ApiToolSettings, {**standard, **settings}),
            environ={"A_TOKEN": SECRET},
            resolve=resolve,
            transport=httpx.MockTransport(self),
            pause=pause,
            chance=lambda: 0.5,
        )


def get(path: str = "/") -> ApiArguments:
    return ApiArguments(url=f"https://a.example{path}")


def post(**fields: object) -> ApiArguments:
    return ApiArguments(url="https://a.example/pay", method="post", body={"amount": 5}, **fields)  # type: ignore[arg-type]


async def test_redirects_of_reading_are_followed_step_by_step() -> None:
    service = Service(
        response(302, Location="/two?x=1"), response(308, Location="https://b.example/three"), response(200, "here")
    )
    result = await service.caller().call(get("/one"), ToolContext())
    assert (result.status, result.location) == (200, "")
    assert [(str(r.url), r.headers["Host"]) for r in service.requests] == [
        ("https://93.184.216.34/one", "a.example"),
        ("https://93.184.216.34/two?x=1", "a.example"),
        ("https://93.184.216.34/three", "b.example"),
    ]


async def test_redirects_have_an_end_and_do_not_leave_tls() -> None:
    for limit in (0, 2):
        service = Service(*(response(302, Location="/on") for _ in range(3)))
        with pytest.raises(ToolError, match=f"more than {limit} redirects"):
            await service.caller(max_redirects=limit).call(get(), ToolContext())
        assert len(service.requests) == limit + 1
    service = Service(response(302, Location="http://a.example/"))
    with pytest.raises(ToolRefused, match="from https to http"):
        await service.caller().call(get(), ToolContext())


async def test_a_redirect_of_writing_is_shown_and_not_followed() -> None:
    service = Service(response(307, Location="https://b.example/"))
    result = await service.caller().call(post(), KEY)
    assert (result.status, result.location, len(service.requests)) == (307, "https://b.example/", 1)


async def test_reading_is_tried_again_with_growing_pauses_that_chance_shortens() -> None:
    service = Service(httpx.ConnectError("no"), response(503), response(200, "at last"))
    assert (await service.caller().call(get(), ToolContext())).status == 200
    assert service.pauses == [0.1, 0.2]


async def test_retry_after_is_obeyed_within_reason() -> None:
    service = Service(response(429, Retry_After="3"), response(429, Retry_After="4000"), response(429))
    assert (await service.caller().call(get(), ToolContext())).status == 429
    assert service.pauses == [3.0, 5.0]


@pytest.mark.parametrize("answer", [response(503), httpx.ReadTimeout("late"), httpx.RemoteProtocolError("cut off")])
async def test_what_must_not_be_repeated_is_not(answer: httpx.Response | Exception) -> None:
    service = Service(answer)
    if isinstance(answer, Exception):
        with pytest.raises(ToolUncertain):
            await service.caller().call(post(), KEY)
    else:
        assert (await service.caller().call(post(), KEY)).status == 503
    assert len(service.requests) == 1


async def test_a_host_that_was_not_reached_has_done_nothing() -> None:
    with pytest.raises(ToolUnavailable) as raised:
        await Service(httpx.ConnectError("refused")).caller().call(post(), KEY)
    assert not isinstance(raised.value, ToolUncertain)


async def test_effects_are_those_of_http_and_of_hosts_that_honour_the_key() -> None:
    caller = Service().caller()
    effects = [caller.effect_of(get().model_copy(update={"method": name})) for name in ("GET", "HEAD", "PUT", "POST")]
    assert effects == [Effect.READ, Effect.READ, Effect.IDEMPOTENT, Effect.ONCE]
    assert Service().caller(idempotent_hosts=["a.example"]).effect_of(post()) is Effect.IDEMPOTENT
    service = Service(httpx.ReadTimeout("late"), response(201))
    result = await service.caller(idempotent_hosts=["a.example"]).call(post(), KEY)
    assert (result.status, [r.headers["Idempotency-Key"] for r in service.requests]) == (201, ["k1", "k1"])


async def test_secrets_go_to_their_host_only_and_never_come_back() -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200,
            headers={"Content-Type": "application/json"},
            stream=httpx.ByteStream(httpx.Response(200, json={"you sent": request.headers["authorization"]}).content),
        )

    headers = {"a.example": {"Authorization": "Bearer ${A_TOKEN}"}}
    service = Service(echo, response(302, Location="https://b.example/"), response(200, "b"))
    caller = service.caller(headers=headers)
    result = await caller.call(get(), ToolContext())
    assert service.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert result.json_body == {"you sent": "Bearer [redacted]"}
    await caller.call(get("/away"), ToolContext())
    assert "Authorization" not in service.requests[2].headers
    assert SECRET not in str(caller.schema) + caller.description


@pytest.mark.parametrize("spelling", [SECRET, 's3cr\\"et/token', "s3cr%22et%2Ftoken"])
async def test_secrets_are_struck_out_of_texts_and_errors_in_every_spelling(spelling: str) -> None:
    headers = {"a.example": {"Authorization": "${A_TOKEN}"}}
    service = Service(response(200, f"<{spelling}>", Content_Type="text/plain"), httpx.ReadError(f"<{spelling}>"))
    caller = service.caller(headers=headers, retries=0)
    assert (await caller.call(get(), ToolContext())).text == "<[redacted]>"
    with pytest.raises(ToolError) as raised:
        await caller.call(get(), ToolContext())
    assert spelling not in str(raised.value)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"a.example": {"Authorization": "${NOT_SET}"}}, r"headers\.a\.example\.Authorization.*NOT_SET is not set"),
        ({"c.example": {"X": "y"}}, "'c.example' is not one of allowed_hosts"),
    ],
)
def test_headers_that_cannot_be_sent_are_an_error_at_start(headers: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        Service().caller(headers=headers)


async def test_a_compressed_answer_says_its_status_and_no_more() -> None:
    result = await Service(response(201, "xx", Content_Encoding="gzip")).caller().call(post(), KEY)
    assert (result.status, result.text) == (201, "<the answer is encoded as gzip, which was not asked for>")


async def test_the_same_wish_is_the_same_call_however_the_method_is_spelt() -> None:
    assert (
        post().model_dump() == ApiArguments(url="https://a.example/pay", method="POST", body={"amount": 5}).model_dump()
    )
