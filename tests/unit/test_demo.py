"""The demo's requests are such that the small model has answers to write, and no statement to invent."""

import sqlite3

from handlers.cli.demo import REQUESTS
from intent.classifier import Classifier
from tasks.agents.models.propose import find_sql, find_url
from tasks.agents.tools.sql_shop import shop
from tasks.settings import Settings


def test_what_is_to_be_looked_up_is_said_outright() -> None:
    read = Classifier.load(None).classify(list(REQUESTS))
    kinds = [Settings().agent_for(found.label) for found in read]
    looked_up = [text for text, kind in zip(REQUESTS, kinds, strict=True) if kind == "executor"]
    assert len(looked_up) >= 2
    assert [text for text in looked_up if not find_sql(text) and not find_url(text)] == []


def test_the_statements_can_be_run() -> None:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(shop())
    statements = [sql for text in REQUESTS if (sql := find_sql(text)) and not text.startswith("Lay out")]
    assert len(statements) == 3
    assert all(connection.execute(sql).fetchall() for sql in statements)
    connection.close()
