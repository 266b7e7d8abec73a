"""One model behind an endpoint that speaks the chat completions protocol: the HTTP part.

On httpx, because importing the ``openai`` package takes longer than starting a whole worker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tasks.access.cuts import whole_words
from tasks.agents.models.dialect import Dialect
from tasks.agents.models.stream import Payload, Whole
from tasks.agents.models.transport import is_loopback, open_transport
from tasks.agents.models.upstream import Failure, Upstream
from tasks.errors import ModelError, ModelRefused
from tasks.settings import ModelSettings

_MAX_DETAIL: Final = 300
_DONE: Final = "[DONE]"


class Endpoint:
    """Sends chat completion requests for one model. Belongs to one event loop; :meth:`close` it there.

    The key is read from ``environ`` for each request, so that a rotated one is used at once, and never kept. Where
    ``settings.stream`` is set, answers are streamed, and put together here.
    """

    def __init__(
        self,
        settings: ModelSettings,
        model: str,
        *,
        environ: Mapping[str, str],
        transport: httpx.AsyncBaseTransport | None = None,
        upstream: Upstream | None = None,
    ) -> None:
        self.model = model
        self._settings = settings
        self._environ = environ
        self._upstream = upstream or Upstream(where(model, settings), settings)
        self._dialect = Dialect()
        self._local = is_loopback(settings.base_url)
        # Without httpx's client around it, whose cookies, redirects and merging of headers take as long as the rest.
        self._transport = transport or open_transport(settings.base_url, keep_alive_seconds=settings.keep_alive_seconds)
        seconds = settings.timeout_seconds
        self._extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)}

    @property
    def counts_tokens(self) -> bool:
        """Whether :meth:`post` wants to know how many tokens a request takes."""
        return self._upstream.rate.counts_tokens

    async def post(self, payload: Payload, *, tokens: int = 0) -> Payload:
        """Send ``payload`` and return the decoded answer. ``tokens`` is about what prompt and answer take.

        Raises:
            ModelRefused: the endpoint refuses this request or this key.
            ModelUnavailable: the endpoint is left alone for now.
            ModelError: it could not be reached or failed, also after a few more tries.
        """
        if self._settings.stream:
            payload = payload | {"stream": True, "stream_options": {"include_usage": True}}
        answer = await self._upstream.call(lambda: self._try(payload), tokens=tokens)
        used = (answer.get("usage") or {}).get("total_tokens")
        if isinstance(used, int):
            self._upstream.rate.settle(tokens, used)
        return answer

    async def warm(self) -> None:
        """Open a connection, by asking for the list of models. What it answers is of no interest.

        Raises:
            ModelError: the endpoint cannot be reached, or the key is missing.
        """
        try:
            response = await self._transport.handle_async_request(self._request("GET", "models"))
            await self._detail(response)
        except httpx.HTTPError as error:
            raise ModelError(f"{self._upstream.name}: {type(error).__name__}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _try(self, payload: Payload) -> Payload:
        while True:
            spoken = self._dialect.spoken(payload)
            request = self._request("POST", "chat/completions", json.dumps(spoken).encode())
            try:
                response = await self._transport.handle_async_request(request)
                if response.status_code == httpx.codes.OK:
                    return await self._answer(response)
                detail = await self._detail(response)
            except httpx.HTTPError as error:
                raise Failure(type(error).__name__) from error
            if response.status_code != httpx.codes.BAD_REQUEST or not self._dialect.learn(spoken, detail):
                raise self._upstream.refusal(response.status_code, detail, response.headers)

    def _whole(self, body: bytes | str) -> Payload:
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise ModelError(f"{self._upstream.name}: the answer is not JSON") from error
        if not isinstance(answer, dict):
            raise ModelError(f"{self._upstream.name}: the answer is not a JSON object")
        return answer

    async def _answer(self, response: httpx.Response) -> Payload:
        try:
            return await self._streamed(response) if self._settings.stream else self._whole(await response.aread())
        finally:
            await response.aclose()

    async def _streamed(self, response: httpx.Response) -> Payload:
        whole = Whole()
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
            if data == _DONE:
                whole.ended = True
            elif data:
                whole.add(self._event(data))
        if not whole.ended:
            raise Failure("the stream broke off")
        return whole.answer()

    def _event(self, data: str) -> Payload:
        event = self._whole(data)
        if event.get("error"):
            raise Failure("the stream reported an error")
        return event

    def _request(self, method: str, path: str, body: bytes = b"") -> httpx.Request:
        headers = {"User-Agent": "sluice", "Content-Type": "application/json"}
        key = self._environ.get(self._settings.api_key_env, "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        elif not self._local:
            raise ModelRefused(
                f"{self._upstream.name} needs a key: set the environment variable {self._settings.api_key_env}, "
                "or let default_model and the agents' models name a model that needs none"
            )
        try:
            url = f"{self._settings.base_url.rstrip('/')}/{path}"
            return httpx.Request(method, url, headers=headers, content=body, extensions=self._extensions)
        except (UnicodeEncodeError, httpx.InvalidURL, ValueError) as error:
            # Neither the key nor the URL is repeated: either may hold a secret.
            raise ModelRefused(
                f"model {self.model!r}: base_url or the key in {self._settings.api_key_env} is malformed"
            ) from error

    async def _detail(self, response: httpx.Response) -> str:
        """Return what the endpoint says is wrong, in one line and without the key."""
        try:
            await response.aread()
            body: Any = response.json()
            error = body.get("error", body)
            text = str(error.get("message", "")) if isinstance(error, dict) else str(error)
        except (httpx.HTTPError, ValueError, AttributeError):
            text = ""
        finally:
            await response.aclose()
        return one_line(text, self._environ.get(self._settings.api_key_env, ""))


def one_line(text: str, key: str) -> str:
    """Return what an endpoint says, short and without the key."""
    return whole_words(" ".join((text.replace(key, "***") if key else text).split()), _MAX_DETAIL)


def where(model: str, settings: ModelSettings) -> str:
    """Return what errors call the endpoint of ``model``."""
    return f"model {model!r} at {urlsplit(settings.base_url).hostname}"
