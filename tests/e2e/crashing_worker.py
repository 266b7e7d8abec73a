"""A worker that kills itself the first time that each request reaches a step. Usage: POOL STEP MARKERS"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tasks.consumer import opened
from tasks.log import bound_fields
from tasks.runtime import Worker, run
from tasks.settings_load import load
from tasks.stores.broker import Delivery
from tasks.stores.redis_broker import RedisBroker

POOL, STEP, MARKERS = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def die_once(request_id: str) -> None:
    """End this process as a power cut would, unless it has done so for this request."""
    marker = MARKERS / request_id
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: str) -> None:
    """Die at the step that the test asked for."""
    if step == STEP:
        die_once(bound_fields()["request_id"])


def die_after_the_pop() -> None:
    """Die when a message has been popped, and nothing has been begun."""
    receive = RedisBroker.receive

    async def receiving(self: RedisBroker, pool: str, most: int, *, now: float) -> list[Delivery]:
        deliveries = await receive(self, pool, most, now=now)
        for delivery in deliveries:
            die_once(opened(delivery.data)["id"])
        return deliveries

    RedisBroker.receive = receiving  # type: ignore[method-assign]


if __name__ == "__main__":
    if STEP == "pop":
        die_after_the_pop()
    run(Worker(load(), [POOL], passed=at_step))
