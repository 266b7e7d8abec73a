"""``sluice http``: the HTTP door as a server."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from handlers.cli.common import naming_the_mend, settings_of
from tasks.errors import SettingsError

if TYPE_CHECKING:
    import uvicorn

_DRAIN_SECONDS = 10


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one.")
@click.option("--tenant", default="default", show_default=True, help="Whose calls they are, without http.jwt.")
@click.pass_context
def http(ctx: click.Context, host: str, port: int, tenant: str) -> None:
    """Serve the HTTP door until SIGTERM, which lets calls that run end.

    Without http.jwt in the settings every caller is the local identity, so it listens on loopback only.
    """
    import uvicorn
    import uvloop

    from handlers.http.serve import make_app

    settings = settings_of(ctx)
    if settings.http.jwt is None and not _is_loopback(host):
        raise SettingsError(
            f"http.jwt: is not set, so anybody could ask through {host}: set it, or listen on 127.0.0.1"
        )
    config = uvicorn.Config(
        make_app(settings, tenant=tenant),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        limit_concurrency=1000,
    )
    with naming_the_mend():
        uvloop.run(_serve(uvicorn.Server(config)))


async def _serve(server: uvicorn.Server) -> None:
    """Serve until told to stop. Uvicorn alone would end by the same signal, and with its exit code."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, setattr, server, "should_exit", True)
    server.capture_signals = _not_at_all  # type: ignore[method-assign]
    await server.serve()


@contextlib.contextmanager
def _not_at_all() -> Iterator[None]:
    yield


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
