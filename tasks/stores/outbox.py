"""The outbox: that a request has ended is to be told to the URL that it names.

A callback is a row of its own in the register, opened before that of its request is cleared. So it has what every
request has: a lease, attempts, a time to wait for, a sweeper. Its message is the request's, with the same grant: the
URL is read from the body, for which the grant vouches, and from nowhere else.
"""

from __future__ import annotations

from tasks import keys
from tasks.contracts.message import Message
from tasks.contracts.row import Row, Stage
from tasks.stores.register import Register
from tasks.stores.relay import row_id_of


def row_of(message: Message) -> Row:
    """Return the row of the callback that ``message`` brings. Neither deadline nor session: it waits for nobody."""
    return Row(
        tenant=message.tenant,
        id=row_id_of(message),
        digest=message.digest,
        stage=Stage.DELIVER,
        revision=message.revision,
        queue=keys.queue(keys.CALLBACK_POOL, message.priority),
        message=message.to_json(),
        accepted_at=message.accepted_at.timestamp(),
        recorded=True,
    )


async def open_callback(message: Message, register: Register, *, due: float, again: bool = False) -> Row | None:
    """Open the callback of the revision in ``message``; return the row to publish, None where it is there or over.

    What nobody publishes by ``due`` the sweeper does. With ``again`` one that is over is opened once more: it has the
    same ``webhook-id``.
    """
    row = row_of(message.changed(delivery=True, agent_type=None, fallback_from=None, fallback_code=None))
    return row if await register.outbox(row, due=due, again=again) else None
