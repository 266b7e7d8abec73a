"""One model behind an endpoint that speaks the chat completions protocol: the HTTP part.

On httpx, because importing the ``openai`` package takes longer than starting a whole worker.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tasks.errors import ModelError, ModelRefused
from tasks.settings import ModelSettings

ATTEMPTS: Final = 4
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 20.0
_MAX_DETAIL: Final = 300
_DONE: Final = "[DONE]"

Payload = dict[str, Any]


class Endpoint:
    """Sends chat completion requests for one model. Belongs to one event loop; :meth:`close` it there.

    The key is read from ``environ`` for each request, so that a rotated one is used at once, and never kept.
    """

    def __init__(
        self,
        settings: ModelSettings,
        model: str,
        *,
        environ: Mapping[str, str],
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.model = model
        self._settings = settings
        self._environ = environ
        self._sleep = sleep
        self._jitter = jitter
        self._local = is_loopback(settings.base_url)
        self._unsupported: set[str] = set()
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=settings.timeout_seconds,
            # A local server gives each open connection a thread: idle ones would keep others out.
            limits=httpx.Limits(max_keepalive_connections=0 if self._local else 20),
            trust_env=not self._local,
            # Loading the authorities' certificates takes 20 ms that plain http on this machine has no use
            # for.
            verify=not (self._local and settings.base_url.startswith("http:")),
        )

    async def post(self, payload: Payload) -> Payload:
        """Send ``payload`` and return the decoded answer.

        Raises:
            ModelRefused: the endpoint refuses this request or this key.
            ModelError: it could not be reached or failed, also after a few more tries.
        """
        response = await self._send(payload, stream=False)
        try:
            answer = response.json()
        except ValueError as error:
            raise ModelError(f"{self._where}: the answer is not JSON") from error
        if not isinstance(answer, dict):
            raise ModelError(f"{self._where}: the answer is not a JSON object")
        return answer

    async def stream(self, payload: Payload) -> AsyncGenerator[Payload, None]:
        """Send ``payload`` and yield the decoded events. Tries again only while nothing was yielded.

        Raises:
            ModelRefused, ModelError: as for :meth:`post`.
        """
        response = await self._send(payload | {"stream": True}, stream=True)
        try:
            async for line in response.aiter_lines():
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == _DONE:
                    return
                if data:
                    yield self._event(data)
        except httpx.HTTPError as error:
            raise ModelError(f"{self._where}: the stream broke off ({type(error).__name__})") from error
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def _where(self) -> str:
        return f"model {self.model!r} at {urlsplit(self._settings.base_url).hostname}"

    def _event(self, data: str) -> Payload:
        try:
            event = json.loads(data)
        except ValueError as error:
            raise ModelError(f"{self._where}: an event of the stream is not JSON") from error
        if not isinstance(event, dict) or event.get("error"):
            raise ModelError(f"{self._where}: the stream reported an error")
        return event

    async def _send(self, payload: Payload, *, stream: bool) -> httpx.Response:
        tries = 0
        while True:
            payload = self._supported(payload)
            problem, wait = "", None
            try:
                response = await self._http.send(self._request(payload), stream=stream)
                if response.status_code == httpx.codes.OK:
                    return response
                detail = await self._detail(response)
                if response.status_code == httpx.codes.BAD_REQUEST and self._learn(payload, detail):
                    continue
                self._refuse(response.status_code, detail)
                problem, wait = f"status {response.status_code} {detail}".strip(), _retry_after(response)
            except httpx.HTTPError as error:
                problem = type(error).__name__
            tries += 1
            pause = self._pause(tries) if wait is None else wait
            if tries >= ATTEMPTS or pause > _LONGEST_WAIT:
                raise ModelError(f"{self._where}: {problem}, after {tries} {'tries' if tries > 1 else 'try'}")
            await self._sleep(pause)

    def _request(self, payload: Payload) -> httpx.Request:
        headers = {}
        key = self._environ.get(self._settings.api_key_env, "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        elif not self._local:
            raise ModelRefused(
                f"{self._where} needs a key: set the environment variable {self._settings.api_key_env}, "
                "or let default_model and the agents' models name a model that needs none"
            )
        try:
            return self._http.build_request(
                "POST",
                f"{self._settings.base_url.rstrip('/')}/chat/completions",
                json=payload,
                headers=headers,
            )
        except (UnicodeEncodeError, httpx.InvalidURL, ValueError) as error:
            # Neither the key nor the URL is repeated: either may hold a secret.
            raise ModelRefused(
                f"model {self.model!r}: base_url or the key in {self._settings.api_key_env} is malformed"
            ) from error

    def _refuse(self, status: int, detail: str) -> None:
        """Raise where ``status`` says that trying again does not help."""
        if status in {401, 403}:
            # What the endpoint says here quotes parts of the key.
            raise ModelRefused(
                f"{self._where}: status {status}, the key in {self._settings.api_key_env} was not accepted"
            )
        if status not in {408, 409, 425, 429} and status < 500:
            raise ModelRefused(f"{self._where}: status {status} {detail}".strip())

    async def _detail(self, response: httpx.Response) -> str:
        """Return what the endpoint says is wrong, in one line and without the key."""
        try:
            await response.aread()
            body = response.json()
            error = body.get("error", body)
            text = str(error.get("message", "")) if isinstance(error, dict) else str(error)
        except (httpx.HTTPError, ValueError, AttributeError):
            text = ""
        finally:
            await response.aclose()
        key = self._environ.get(self._settings.api_key_env, "")
        return " ".join((text.replace(key, "***") if key else text).split())[:_MAX_DETAIL]

    def _learn(self, payload: Payload, detail: str) -> bool:
        """Remember a parameter that this model does not know, and tell whether to try without it.

        Newer models of the same API know ``max_completion_tokens`` only, and some no temperature.
        """
        for name, sign in (("max_tokens", "max_completion_tokens"), ("temperature", "temperature")):
            if name in payload and sign in detail and "unsupported" in detail.lower():
                self._unsupported.add(name)
                return True
        return False

    def _supported(self, payload: Payload) -> Payload:
        kept = {name: value for name, value in payload.items() if name not in self._unsupported}
        if "max_tokens" in self._unsupported and "max_tokens" in payload:
            kept["max_completion_tokens"] = payload["max_tokens"]
        return kept

    def _pause(self, tries: int) -> float:
        return float(_FIRST_WAIT * 2 ** (tries - 1) * (0.5 + self._jitter()))


def is_loopback(url: str) -> bool:
    """Tell whether ``url`` leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the endpoint asks to wait, from a number or a date."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
