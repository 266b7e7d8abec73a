"""The SQL guard: nothing but a single reading statement ever passes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.agents.tools.sql_guard import DIALECTS, read_statement, render

NASTY = [
    "DROP TABLE customers",
    "DELETE FROM customers",
    "UPDATE customers SET name = 'x'",
    "INSERT INTO customers VALUES (1)",
    "INSERT INTO customers SELECT * FROM customers",
    "REPLACE INTO customers VALUES (1)",
    "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE",
    "CREATE TABLE x AS SELECT 1",
    "CREATE TEMP VIEW v AS SELECT 1",
    "ALTER TABLE customers RENAME TO x",
    "TRUNCATE TABLE customers",
    "PRAGMA writable_schema = 1",
    "ATTACH DATABASE '/etc/passwd' AS p",
    "DETACH p",
    "VACUUM INTO '/tmp/x'",
    "ANALYZE",
    "REINDEX",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT x",
    "SET search_path = x",
    "USE other",
    "GRANT ALL ON customers TO x",
    "CALL do_it()",
    "EXEC xp_cmdshell 'dir'",
    "COPY customers TO '/tmp/x'",
    "LOAD DATA INFILE '/etc/passwd' INTO TABLE customers",
    "SELECT 1; DROP TABLE customers",
    "SELECT 1; SELECT 2",
    "SELECT 1;; DELETE FROM customers",
    "SELECT * INTO copy FROM customers",
    "SELECT * FROM customers FOR UPDATE",
    "SELECT * FROM customers INTO OUTFILE '/tmp/x'",
    "WITH gone AS (DELETE FROM customers RETURNING *) SELECT * FROM gone",
    "WITH made AS (INSERT INTO customers VALUES (1) RETURNING id) SELECT * FROM made",
    "WITH a AS (SELECT 1) DELETE FROM customers",
    "WITH a AS (SELECT 1) INSERT INTO customers SELECT * FROM a",
    "SELECT * FROM (DELETE FROM customers RETURNING *) x",
    "EXPLAIN DELETE FROM customers",
    "EXPLAIN ANALYZE DELETE FROM customers",
    "EXPLAIN QUERY PLAN DROP TABLE customers",
    "/* a comment */ DROP TABLE customers",
    "-- SELECT\nDROP TABLE customers",
    "SELECT 1 /* ; */ ; DROP TABLE customers --",
    "(DELETE FROM customers)",
    "SELECT * FROM customers WHERE id = ?",
    "SELECT @@version",
    "hello world",
    "",
    " ; ; ",
    "\0SELECT 1",
    "(" * 5000 + "SELECT 1" + ")" * 5000,
    "SELECT " + "(" * 100 + "1" + ")" * 100,
    "SELECT 1 " + "+ 1" * 5000,
]


@pytest.mark.parametrize("sql", NASTY)
def test_nasty_statements_are_refused(sql: str) -> None:
    statement = read_statement(sql)

    assert not statement.allowed
    assert statement.problems
    with pytest.raises(ValueError, match="allowed"):
        render(statement, "sqlite")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "sql", ["DROP TABLE t", "DELETE FROM t", "SELECT 1; DELETE FROM t", "INSERT INTO t VALUES (1)"]
)
def test_no_named_dialect_opens_a_door(sql: str, dialect: str) -> None:
    assert not read_statement(sql, dialect).allowed


@pytest.mark.parametrize(
    ("sql", "kind", "dialect"),
    [
        ("SELECT name FROM customers", "select", "sqlite"),
        ("WITH a AS (SELECT 1 AS x) SELECT x FROM a", "select", "sqlite"),
        ("SELECT 1 UNION ALL SELECT 2", "union", "sqlite"),
        ("VALUES (1, 2)", "values", "sqlite"),
        ("SELECT TOP 3 name FROM products", "select", "tsql"),
        ("SELECT `name` FROM products", "select", "mysql"),
        ("SELECT id::int FROM products", "select", "postgres"),
        ("SELECT 'DROP TABLE x; DELETE FROM y'", "select", "sqlite"),
        ("select name from products;", "select", "sqlite"),
    ],
)
def test_queries_pass(sql: str, kind: str, dialect: str) -> None:
    statement = read_statement(sql)

    assert statement.allowed, statement.problems
    assert (statement.kind, statement.dialect) == (kind, dialect)


def test_tables_columns_and_explain_are_found() -> None:
    statement = read_statement(
        "EXPLAIN WITH r AS (SELECT id FROM orders) SELECT c.name FROM customers c JOIN r USING (id)"
    )

    assert statement.explain
    assert statement.tables == ("customers", "orders") or set(statement.tables) == {"customers", "orders"}
    assert set(statement.columns) >= {"name", "id"}


def test_comments_do_not_reach_the_database() -> None:
    assert render(read_statement("SELECT 1 /* secret */ -- more"), "sqlite") == "SELECT 1"


def test_unknown_dialect_is_a_problem_not_an_exception() -> None:
    assert "not valid SQL" in read_statement("SELECT 1", "klingon").problems[0]


WRITING = st.sampled_from(
    [
        "DELETE FROM {t}",
        "UPDATE {t} SET a = 1",
        "DROP TABLE {t}",
        "INSERT INTO {t} VALUES (1)",
        "CREATE TABLE {t} (a INT)",
        "ALTER TABLE {t} ADD COLUMN b INT",
        "TRUNCATE TABLE {t}",
        "PRAGMA {t} = 1",
        "ATTACH '{t}' AS x",
        "VACUUM INTO '{t}'",
    ]
)
FRAME = st.sampled_from(
    [
        "{w}",
        "{w};",
        " {w} -- SELECT",
        "/* SELECT 1 */ {w}",
        "SELECT 1; {w}",
        "{w}; SELECT 1",
        "WITH a AS ({w}) SELECT * FROM a",
        "SELECT * FROM ({w}) AS a",
        "EXPLAIN {w}",
        "({w})",
        "SELECT 1 UNION {w}",
        "SELECT CASE WHEN EXISTS ({w}) THEN 1 END",
    ]
)
NAME = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)


@settings(max_examples=150, deadline=None)
@given(writing=WRITING, frame=FRAME, name=NAME, lower=st.booleans())
def test_no_writing_statement_passes_in_any_frame(writing: str, frame: str, name: str, lower: bool) -> None:
    sql = frame.format(w=writing.format(t=name))

    assert not read_statement(sql.lower() if lower else sql).allowed


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="SELECTDROPWITHFROM ()*;,'\"-/1ax\n", max_size=60))
def test_any_text_is_judged_without_an_exception(text: str) -> None:
    statement = read_statement(text)

    assert statement.allowed or statement.problems
    if statement.allowed:
        assert render(statement, "sqlite").lstrip("( ").upper().startswith(("SELECT", "WITH", "VALUES"))
