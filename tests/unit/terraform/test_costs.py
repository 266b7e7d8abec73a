"""The tables of docs/terraform.md are those that its figures give."""

import json
from typing import Any

import pytest

from terraform.check import costs


def test_the_page_has_the_tables_of_today() -> None:
    page = costs.PAGE.read_text("utf-8")
    assert costs.renewed(page) == page, "run python -m terraform.check costs"


def test_idle_is_what_stands_there_and_requests_add_to_it(rendered: dict[str, Any]) -> None:
    prices = json.loads(costs.PRICES.read_text("utf-8"))
    standing = costs.standing(prices, rendered["counts"])
    assert standing["EKS control plane"] == pytest.approx(73)
    assert all(cost > 0 for cost in standing.values())
    assert costs.per_million(prices)["SQS: 0.8 calls a request"] == pytest.approx(0.32)
    for part in ("standing", "per_million_requests"):
        assert all(it["page"].startswith("aws.amazon.com/") for it in prices[part].values())
