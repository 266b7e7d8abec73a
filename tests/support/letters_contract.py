"""What every broker does with queues that nothing consumes. Each test gets a broker whose queues are empty."""

from tasks import keys
from tasks.stores.broker import Broker, Letter, Parcel

QUEUE = keys.DEAD_LETTERS


async def laid(broker: Broker, count: int) -> None:
    """Lay letters down, the oldest first."""
    for number in range(count):
        await broker.publish([Parcel(QUEUE, f"acme/r{number}", f'{{"n":{number}}}', 1000.5 + number, "why")])


def contents(letters: list[Letter]) -> list[bytes]:
    return sorted(letter.data for letter in letters)


async def check_letters_are_shown_and_stay(broker: Broker) -> None:
    assert await broker.letters(QUEUE, 5) == []
    await laid(broker, 3)
    first = await broker.letters(QUEUE, 5)
    assert len(first) == 3
    assert first[0].data == b'{"queued_at":1000.5,"message":{"n":0},"reason":"why"}'
    await broker.leave(QUEUE, [letter.tag for letter in first])
    again = await broker.letters(QUEUE, 5)
    assert contents(again) == contents(first)
    await broker.leave(QUEUE, [letter.tag for letter in again])


async def check_more_than_one_look_takes_shows_each_once(broker: Broker) -> None:
    await laid(broker, 25)
    seen: list[Letter] = []
    while page := await broker.letters(QUEUE, 12, skip=len(seen)):
        seen += page
    assert len({letter.data for letter in seen}) == len(seen) == 25
    await broker.leave(QUEUE, [letter.tag for letter in seen])
    assert len(await broker.letters(QUEUE, 100)) == 25


async def check_what_is_removed_is_gone_and_removing_it_twice_is_no_fault(broker: Broker) -> None:
    await laid(broker, 3)
    letters = await broker.letters(QUEUE, 5)
    for _ in range(2):
        await broker.remove(QUEUE, [letters[0].tag, letters[2].tag])
    await broker.leave(QUEUE, [letters[1].tag])
    assert [letter.data for letter in await broker.letters(QUEUE, 5)] == [letters[1].data]
    await broker.remove(QUEUE, [])
    await broker.leave(QUEUE, [])


CHECKS = (
    check_letters_are_shown_and_stay,
    check_more_than_one_look_takes_shows_each_once,
    check_what_is_removed_is_gone_and_removing_it_twice_is_no_fault,
)
