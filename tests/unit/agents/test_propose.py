"""What is proposed without a model: only what the text says outright."""

from __future__ import annotations

import pytest

from tasks.agents.models.propose import find_sql, find_url, propose

SQL_TOOL = {"name": "db", "parameters": {"required": ["sql"], "properties": {"sql": {}, "mode": {}}}}
URL_TOOL = {"name": "web", "parameters": {"required": ["url"], "properties": {"url": {}, "method": {}}}}


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("Please run SELECT a FROM t and tell me what it says.", "SELECT a FROM t"),
        ("SELECT a, b FROM t WHERE c = 1.5;", "SELECT a, b FROM t WHERE c = 1.5"),
        ("Run this:\n```sql\nselect a\nfrom t;\n```\nthanks", "select a\nfrom t"),
        ("What does `SELECT 1` give?", "SELECT 1"),
        (
            "run select name, count(*) from customers group by name",
            "select name, count(*) from customers group by name",
        ),
        ("Run SELECT a FROM t WHERE b = 'c'", "SELECT a FROM t WHERE b = 'c'"),
        ('Run "SELECT a FROM t"', "SELECT a FROM t"),
        ("Run 'SELECT a FROM t WHERE b = 'c''", "SELECT a FROM t WHERE b = 'c'"),
        ('Run SELECT a FROM t WHERE "b" = "c"', 'SELECT a FROM t WHERE "b" = "c"'),
        ("Execute DROP TABLE customers!", "DROP TABLE customers"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
        ("Please select a chair from the list, then sit down.", None),
        ("We select the best from many.", None),
        ("Use the `ls` command", None),
        ("Nothing here", None),
    ],
)
def test_sql_is_found_only_where_it_stands(text: str, sql: str | None) -> None:
    assert find_sql(text) == sql


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("Call https://api.example.com/v1/x?y=1.", "https://api.example.com/v1/x?y=1"),
        ("(see http://a.example/b)", "http://a.example/b"),
        ("http://a.example/b_(c) is it", "http://a.example/b_(c)"),
        ("ftp://a.example", None),
        ("a.example", None),
    ],
)
def test_url_is_found_without_punctuation(text: str, url: str | None) -> None:
    assert find_url(text) == url


def test_arguments_follow_the_words_around() -> None:
    tools = [URL_TOOL, SQL_TOOL]

    assert propose("Validate `SELECT 1`", tools) == ("db", {"sql": "SELECT 1", "mode": "validate"})
    assert propose("HEAD https://a.example/", tools) == ("web", {"url": "https://a.example/", "method": "HEAD"})
    assert propose("Run SELECT 1", [URL_TOOL]) is None
    assert propose("hello", tools) is None
