"""SQS on this machine (moto in server mode), with the queues of a deployment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import boto3
import orjson
from moto.server import ThreadedMotoServer

from tasks import keys

REGION = "us-east-1"
_ACCOUNT = "123456789012"


@contextmanager
def sqs_server() -> Iterator[str]:
    """Serve on a free port; yield ``HOST:PORT``."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop()


def deploy(address: str, name: str, pools: Iterable[str], *, visibility: int, once: bool = False) -> str:
    """Make the queues of ``pools``; return the deployment's URL. ``visibility`` is seconds.

    With ``once`` a message that is received a second time goes to the queue of dead letters instead.
    """
    client = boto3.client("sqs", endpoint_url=f"http://{address}", region_name=REGION)
    dead = keys.sqs_queue(name, keys.DEAD_LETTERS)
    for queue in (dead, keys.sqs_queue(name, keys.QUARANTINE)):
        client.create_queue(QueueName=queue)
    attributes = {"VisibilityTimeout": str(visibility)}
    if once:
        target = f"arn:aws:sqs:{REGION}:{_ACCOUNT}:{dead}"
        attributes["RedrivePolicy"] = orjson.dumps({"deadLetterTargetArn": target, "maxReceiveCount": 1}).decode()
    for pool in pools:
        for queue in keys.queues(pool):
            client.create_queue(QueueName=keys.sqs_queue(name, queue), Attributes=attributes)
    return f"sqs+http://{address}/{_ACCOUNT}/{name}"
