"""``sluice events``: what Lambda does for objects and messages on AWS, as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import click

from handlers.cli.common import naming_the_mend, settings_of, until_told
from tasks.errors import SettingsError

if TYPE_CHECKING:
    from tasks.settings import Settings


@click.group()
def events() -> None:
    """Take objects and messages as requests, as the Lambda handlers do. Both run until SIGTERM."""


@events.command()
@click.option("--existing", is_flag=True, help="Also take what lies there already; no request is made twice.")
@click.pass_context
def watch(ctx: click.Context, *, existing: bool) -> None:
    """Take each object that appears below the prefixes of events.buckets. Its manifest says what became of it."""
    settings = settings_of(ctx)
    if not settings.events.buckets:
        raise SettingsError("events.buckets: names no prefix to watch")
    with naming_the_mend():
        asyncio.run(until_told(_watch(settings, existing=existing)))


async def _watch(settings: Settings, *, existing: bool) -> None:
    from handlers.aws import s3
    from handlers.aws.container import Doors
    from handlers.events.watch import Watch, places
    from tasks.stores.s3 import S3ObjectStore
    from tasks.stores.watched import RedisWatched

    async with contextlib.aclosing(Doors(settings)) as doors:
        opened = await doors.door(s3.DOOR)
        await Watch(
            places(settings),
            bucket=lambda name: S3ObjectStore(name, region=settings.region, endpoint=settings.s3_endpoint),
            marks=RedisWatched(opened.stores.link),
            take=lambda created: s3.take(doors, [created]),
            existing=existing,
        ).run()


@events.command()
@click.option("--notices", multiple=True, help="A queue that a bucket's notifications go to; may be repeated.")
@click.pass_context
def poll(ctx: click.Context, notices: tuple[str, ...]) -> None:
    """Take the messages of the SQS queues of events.queues. AWS_ENDPOINT_URL_SQS names a server of your own."""
    settings = settings_of(ctx)
    if not settings.events.queues and not notices:
        raise SettingsError("events.queues: names no queue to poll")
    with naming_the_mend():
        asyncio.run(until_told(_poll(settings, notices)))


async def _poll(settings: Settings, notices: tuple[str, ...]) -> None:
    import boto3

    from handlers.aws import s3, sqs
    from handlers.aws.container import Doors
    from handlers.aws.poll import Poller
    from handlers.events.batch import messages_of

    client = boto3.client("sqs", region_name=settings.region)
    async with contextlib.aclosing(Doors(settings)) as doors:
        requests = [
            Poller(source.name, client, lambda batch: sqs.take(doors, messages_of(batch)))
            for source in settings.events.queues
        ]
        objects = [Poller(name, client, lambda batch: s3.take_queued(doors, messages_of(batch))) for name in notices]
        await asyncio.gather(*(poller.run() for poller in (*requests, *objects)))
