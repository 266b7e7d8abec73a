"""AWS's protocols on this machine: moto in server mode, and the queues of a deployment on it."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from tasks import keys

REGION = "us-east-1"
ACCOUNT = "123456789012"


@contextmanager
def serving() -> Iterator[str]:
    """Yield the address, ``host:port``."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop()


def client(service: str, address: str) -> Any:
    """Return a client of a service at ``address``, whose credentials nobody checks."""
    return boto3.client(
        service,
        endpoint_url=f"http://{address}",
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def deploy(address: str, name: str, pools: Iterable[str], *, visibility: int = 2, receives: int = 5) -> str:
    """Make the queues of a deployment as Terraform does; return its ``broker_url``.

    A message that was received ``receives`` times goes to the dead letters, instead of being received once more.
    """
    sqs = client("sqs", address)
    for queue in (keys.DEAD_LETTERS, keys.QUARANTINE):
        sqs.create_queue(QueueName=keys.sqs_queue(name, queue))
    dead = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{keys.sqs_queue(name, keys.DEAD_LETTERS)}"
    redrive = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": receives})
    for queue in (queue for pool in pools for queue in keys.queues(pool)):
        sqs.create_queue(
            QueueName=keys.sqs_queue(name, queue),
            Attributes={"VisibilityTimeout": str(visibility), "RedrivePolicy": redrive},
        )
    return f"sqs+http://{address}/{ACCOUNT}/{name}"
