"""What died of the stack is started again, and what dies again and again is left alone."""

from scaling.keeper import Keeper
from tasks.errors import NotReady


class Stack:
    def __init__(self) -> None:
        self.missing: list[str] = []
        self.starts = 0
        self.fails = False
        self.now = 0.0
        self.keeper = Keeper(lambda: self.missing, self.up, now=lambda: self.now)

    def up(self) -> None:
        self.starts += 1
        if self.fails:
            raise NotReady("redis did not start")
        self.missing = []


def test_what_died_is_started_once() -> None:
    stack = Stack()
    stack.keeper.look()
    assert stack.starts == 0
    stack.missing = ["scheduler"]
    stack.keeper.look()
    stack.keeper.look()
    assert stack.starts == 1


def test_what_cannot_be_started_is_tried_again_and_then_left_alone() -> None:
    stack = Stack()
    stack.missing, stack.fails = ["redis"], True
    for _ in range(50):
        stack.keeper.look()
        stack.now += 2
    assert stack.starts == 5
    stack.now += 600
    stack.keeper.look()
    assert stack.starts == 6
