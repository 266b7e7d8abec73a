"""Cutting conversations to a budget."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.agents.models.fit import estimate, fit, shorten, size


def _call(name: str) -> dict[str, object]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": name, "arguments": "{}"}}],
    }


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=2000), st.integers(16, 300))
def test_a_shortened_text_keeps_to_its_budget(text: str, budget: int) -> None:
    assert estimate(shorten(text, budget)) <= budget


def test_a_short_text_stays_whole() -> None:
    assert shorten("A short text.", 50) == "A short text."


def test_newest_turn_and_system_survive() -> None:
    system = {"role": "system", "content": "Be brief."}
    old = [{"role": "user", "content": "old " * 100}, {"role": "assistant", "content": "older " * 100}]
    new = {"role": "user", "content": "What now?"}

    assert fit([system, *old, new], 60) == [system, new]
    assert fit([system, *old, new], 5000) == [system, *old, new]


def test_a_result_never_stands_without_its_call() -> None:
    messages = [
        {"role": "user", "content": "first " * 30},
        _call("t"),
        {"role": "tool", "tool_call_id": "1", "name": "t", "content": "result"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "again"},
    ]

    for budget in range(20, 200, 5):
        kept = fit(messages, budget)
        assert kept[0]["role"] in {"user", "system"}


def test_a_long_newest_turn_is_squeezed_into_the_budget() -> None:
    system = {"role": "system", "content": "Be brief."}
    messages = [system, {"role": "user", "content": "word " * 3000}]

    kept = fit(messages, 200)

    assert sum(map(size, kept)) <= 200
    assert kept[0] == system
    assert len(kept[1]["content"]) > 200
