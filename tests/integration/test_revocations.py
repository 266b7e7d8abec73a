"""The list of revoked grants on the real server."""

from tasks import keys
from tasks.stores.connect import Stores


async def test_an_entry_is_read_until_it_is_taken_off(stores: Stores) -> None:
    entry = keys.revoked_subject("acme", "alice")
    assert await stores.revocations.read() == {}
    await stores.revocations.revoke(entry, until=1795366800.25)
    assert await stores.revocations.read() == {entry: 1795366800.25}
    assert await stores.revocations.restore(entry)
    assert not await stores.revocations.restore(entry)
    assert await stores.revocations.read() == {}
