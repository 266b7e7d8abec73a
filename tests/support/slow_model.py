"""A model's API that takes as long over a task as the task says, and remembers who asked for what, when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

_TASK = re.compile(r"Task ([\w.-]+) takes ([\d.]+) s")


def task(name: str, seconds: float, **fields: object) -> dict[str, object]:
    """Return a request that takes ``seconds``, for the responder."""
    return {"id": name, "text": f"Task {name} takes {seconds} s.", "intent": "answer_question", **fields}


@dataclass
class SlowModel:
    """``begun`` and ``ended`` have the loop's times for each task; a call whose caller went away has no end.

    A task that is asked for again, and one that was let go, is answered at once.
    """

    url: str = ""
    begun: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _free: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    @property
    def calls(self) -> dict[str, int]:
        """Return how often each task was asked for."""
        return {name: len(times) for name, times in self.begun.items()}

    def let_go(self, names: Iterable[str]) -> None:
        """End these tasks now."""
        for name in names:
            self._free[name].set()

    async def until_begun(self, count: int, seconds: float = 60) -> None:
        """Wait until ``count`` tasks were asked for."""
        async with asyncio.timeout(seconds):
            while len(self.begun) < count:
                await asyncio.sleep(0.02)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes on one connection."""
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                [length] = re.findall(r"(?i)content-length: (\d+)", head)
                name = await self._take(await reader.readexactly(int(length)), reader)
                if name is None:
                    break
                data = json.dumps({"choices": [{"message": {"content": f"Did {name}."}, "finish_reason": "stop"}]})
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode())
                await writer.drain()

    async def _take(self, body: bytes, reader: asyncio.StreamReader) -> str | None:
        """Take the time that a task takes; return its name, None where the caller went away meanwhile."""
        name, seconds = _TASK.findall(body.decode())[-1]
        loop = asyncio.get_running_loop()
        self.begun[name].append(loop.time())
        if len(self.begun[name]) == 1:
            gone, freed = asyncio.create_task(reader.read(1)), asyncio.create_task(self._free[name].wait())
            await asyncio.wait([gone, freed], timeout=float(seconds), return_when=asyncio.FIRST_COMPLETED)
            is_gone = gone.done()
            gone.cancel()
            freed.cancel()
            await asyncio.wait([gone, freed])
            if is_gone:
                return None
        self.ended[name].append(loop.time())
        return str(name)


@contextlib.asynccontextmanager
async def slow_model() -> AsyncIterator[SlowModel]:
    """Serve on a free port of this machine."""
    model, serving = SlowModel(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(model.serve(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield model
    finally:
        server.close()
        for connection in serving:
            connection.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
