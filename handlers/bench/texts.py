"""What ``sluice bench`` asks: short texts over every intent, numbered so that no two requests are the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

TEXTS: Final = (
    # plan_task
    "Plan the move of warehouse {n} to the new site, week by week.",
    "Break the launch of feature {n} into steps with an owner for each.",
    "I need a schedule for training team {n} on the new till software.",
    "Lay out the phases of replacing boiler {n} without closing the building.",
    "Draw up a checklist for audit {n}, from the first letter to the report.",
    "Sketch a roadmap that takes prototype {n} to its first hundred users.",
    # query_data
    "How many orders did branch {n} ship in May?",
    "List the five best customers of region {n} by revenue.",
    "What was the average basket in shop {n} last quarter?",
    "SELECT city, COUNT(*) FROM customers WHERE id > {n} GROUP BY city",
    "Show every invoice over {n} euros that is still open.",
    "Which products of catalogue {n} have sold out?",
    # call_api
    "Fetch https://status.example.com/v1/services/{n} and tell me its state.",
    "Call the weather service for station {n}.",
    "Send a POST request that closes ticket {n}.",
    "Look up the exchange rate for payment {n} through the bank's API.",
    "Ping the health endpoint of node {n}.",
    # answer_question
    "What is a webhook, and when would job {n} need one?",
    "Why does bread number {n} not rise when the water is too hot?",
    "How do I reset the password of account {n}?",
    "What is the difference between a router and a switch in rack {n}?",
    "Who pays for the return of parcel {n}?",
    "How does a heat pump warm house {n} in winter?",
    "Can I bring a dog on train {n}?",
    # summarize_text
    "Summarise: delivery {n} came two days late. One box was torn. The customer kept the goods and got a voucher.",
    "Give me the gist: meeting {n} set the budget, moved the deadline to June and left the venue open.",
    "In one sentence, please: pump {n} failed at night, the spare took over, and nobody noticed until Monday.",
    "Sum this up: report {n} finds fewer accidents, longer waits at the gates, and no change in cost.",
    "Shorten this note: visitor {n} liked the tour, missed a lift, and will be back with the family.",
    # draft_text
    "Write a friendly e-mail that tells tenant {n} about the water being off on Friday.",
    "Draft a job advert for a night porter at hotel {n}.",
    "Compose a short apology to customer {n} for the wrong colour.",
    "Write two lines for the box of tea number {n}.",
    "Draft a reminder that invoice {n} falls due next week.",
    # talk_to_human
    "I want to speak to a person about complaint {n}.",
    "Please put me through to somebody who can decide about case {n}.",
    "Your robot does not understand ticket {n}. Get me a manager.",
    "Can a colleague ring me back about order {n}?",
    # out of scope
    "Hmm {n}.",
    "qwx zzv {n} plk",
)


def texts(count: int, *, start: int = 0) -> Iterator[str]:
    """Yield ``count`` texts, those numbered from ``start``: the list again and again, each with its number."""
    for number in range(start, start + count):
        yield TEXTS[number % len(TEXTS)].format(n=number)
