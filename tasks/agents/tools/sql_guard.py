"""Reads one SQL statement and tells whether it only reads. Pure: touches no database.

The statement is judged by its parse tree, never by its text: its root must be a query, nothing below may be
anything that writes, locks or configures, and only known functions may be called. What runs later is generated from
that tree, so comments and text that the parser did not understand cannot ride along.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from tasks.access.cuts import whole_words
from tasks.agents.tools.sql_functions import refused_functions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlglot import exp

DIALECTS: Final = ("sqlite", "postgres", "mysql", "tsql", "bigquery", "snowflake", "duckdb", "oracle")
"""What is tried, in this order, where the caller names no dialect and the statement bears no sign of one."""
MAX_SQL_CHARACTERS: Final = 8 * 1024
MAX_NESTING: Final = 64

_SIGNS: Final = (
    (re.compile(r"\bSELECT\s+(?:DISTINCT\s+)?TOP\s*\(?\s*\d|\[\w+\]", re.IGNORECASE), "tsql"),
    (re.compile(r"`[^`]+`"), "mysql"),
    (re.compile(r"::\s*\w|\bILIKE\b|\bDISTINCT\s+ON\b", re.IGNORECASE), "postgres"),
    (re.compile(r"\bQUALIFY\b|\bIFF\s*\(", re.IGNORECASE), "snowflake"),
    (re.compile(r"\bROWNUM\b|\bFROM\s+DUAL\b|\bNVL\s*\(", re.IGNORECASE), "oracle"),
)
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN(?:\s+QUERY\s+PLAN|\s+ANALYZE)?\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """What one SQL text is. ``tree`` is there only where it may be run.

    ``problems`` says what is wrong, in words for the agent; ``allowed`` is whether there is nothing.
    """

    kind: str = "unknown"
    dialect: str = ""
    explain: bool = False
    tables: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    formatted: str = ""
    problems: tuple[str, ...] = ()
    tree: exp.Expression | None = field(default=None, repr=False)

    @property
    def allowed(self) -> bool:
        """Whether it is one statement that only reads."""
        return self.tree is not None and not self.problems


def read_statement(
    sql: str, dialect: str | None = None, *, home: str = "", functions: Collection[str] = ()
) -> Statement:
    """Parse ``sql`` as ``dialect``, else as the first that fits, and judge it. Never raises on any text.

    ``home`` is the dialect of the database, tried first; ``functions`` may be called beside the known ones.
    """
    problem = _unparsable(sql)
    if problem:
        return Statement(problems=(problem,))
    stripped = _EXPLAIN.sub("", sql, count=1) if _EXPLAIN.match(sql) else sql
    parsed = _parse(stripped, [dialect] if dialect else _candidates(sql, home))
    if isinstance(parsed, str):
        return Statement(problems=(parsed,))
    used, trees = parsed
    if len(trees) != 1:
        problem = "no statement" if not trees else f"{len(trees)} statements; only one at a time is allowed"
        return Statement(dialect=used, problems=(problem,))
    return _judge(trees[0], used, functions, explain=stripped is not sql)


def _unparsable(sql: str) -> str:
    if not sql.strip():
        return "no statement"
    if len(sql) > MAX_SQL_CHARACTERS:
        return f"the statement is longer than {MAX_SQL_CHARACTERS} characters"
    if "\0" in sql:
        return "the statement contains a null character"
    # The parser recurses: refuse what would exhaust the stack before it is tried.
    depth = deepest = 0
    for character in sql:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return f"parentheses are nested more than {MAX_NESTING} deep" if deepest > MAX_NESTING else ""


def _candidates(sql: str, home: str) -> list[str]:
    hinted = [dialect for sign, dialect in _SIGNS if sign.search(sql)]
    return list(dict.fromkeys([*([home] if home else []), *hinted, *DIALECTS]))


def _parse(sql: str, dialects: Sequence[str]) -> tuple[str, list[Any]] | str:
    """Return the first of ``dialects`` that fits and the trees, or what is wrong."""
    sqlglot = _sqlglot()
    from sqlglot.errors import SqlglotError
    from sqlglot.expressions import Command

    first_error = ""
    fallback: tuple[str, list[Any]] | None = None
    for candidate in dialects:
        try:
            trees = [tree for tree in sqlglot.parse(sql, read=candidate) if tree is not None]
        except (SqlglotError, RecursionError, ValueError) as error:
            # ValueError: also an unknown dialect, and numbers that Python cannot read.
            first_error = first_error or _one_line(error)
            continue
        if not any(isinstance(tree, Command) for tree in trees):
            return candidate, trees
        # "Command" is what the parser says of what it does not know: another dialect may know better.
        fallback = fallback or (candidate, trees)
    return fallback or f"not valid SQL: {first_error}"


def _judge(tree: Any, dialect: str, functions: Collection[str], *, explain: bool = False) -> Statement:
    kind = _kind(tree)
    if not _reads(tree):
        return Statement(
            kind=kind, dialect=dialect, problems=(f"{kind.upper()} is not a query; only reading is allowed",)
        )
    found = {type(node) for node in tree.walk()}
    writing = sorted(kind_.__name__.upper() for kind_ in found if issubclass(kind_, _forbidden()))
    if writing:
        problem = f"the query contains {', '.join(writing)}; only reading is allowed"
        return Statement(kind=kind, dialect=dialect, problems=(problem,))
    if refused := refused_functions(tree, functions):
        problem = f"the query calls {', '.join(refused)}, which is not among the functions that may be called"
        return Statement(kind=kind, dialect=dialect, problems=(problem,))
    formatted = _generate(tree, dialect, pretty=True)
    if formatted is None:
        return Statement(kind=kind, dialect=dialect, problems=("the statement is too deeply nested",))
    tables, columns = _names(tree)
    return Statement(kind, dialect, explain, tables, columns, formatted, (), tree)


def _kind(tree: Any) -> str:
    from sqlglot import exp

    if isinstance(tree, exp.Command):
        return str(tree.this).lower()
    return str(tree.key)


def _reads(tree: Any) -> bool:
    from sqlglot import exp

    return isinstance(tree, (exp.Select, exp.SetOperation, exp.Values)) or (
        isinstance(tree, exp.Subquery) and _reads(tree.this)
    )


@lru_cache(maxsize=1)
def _forbidden() -> tuple[type, ...]:
    from sqlglot import exp

    # SELECT … INTO creates a table, FOR UPDATE locks. A parameter has no value here. A hint may lift the limit of time.
    # The rest speak for themselves.
    names = (
        "DML DDL Command Into Lock Pragma Attach Detach Copy Show Describe Set SetItem Use Drop Alter "
        "AlterColumn TruncateTable Transaction Commit Rollback Kill Cache Uncache Refresh LoadData Grant "
        "Revoke Analyze Comment Merge Execute ExecuteSql Export Install Placeholder Parameter SessionParameter "
        "Semicolon Hint Block Declare StoredProcedure Put Get ListStage Directory DirectoryStage Credentials "
        "ConnectTo Disconnect AlterSession Undrop Summarize Stream Returning"
    )
    return tuple(getattr(exp, name) for name in names.split() if hasattr(exp, name))


def _names(tree: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from sqlglot import exp

    own = {cte.alias_or_name for cte in tree.find_all(exp.CTE)}
    tables = (table.name for table in tree.find_all(exp.Table) if table.name not in own)
    columns = (column.name for column in tree.find_all(exp.Column) if column.name)
    return tuple(dict.fromkeys(filter(None, tables))), tuple(dict.fromkeys(columns))


def render(statement: Statement, dialect: str, *, functions: Collection[str] = ()) -> str:
    """Return an allowed statement as a database of ``dialect`` reads it, without comments.

    It is judged once more as what it has become: two dialects may read the same text in two ways.

    Raises:
        ValueError: the statement is not allowed, or has no form in ``dialect`` that is.
    """
    if not statement.allowed:
        raise ValueError("only an allowed statement can be run")
    text = _generate(statement.tree, dialect, pretty=False)
    if text is None:
        raise ValueError("the statement is too deeply nested")
    if again := read_statement(text, dialect, functions=functions).problems:
        raise ValueError(f"the statement has no form in {dialect} that is allowed: {'; '.join(again)}")
    return text


def _generate(tree: Any, dialect: str, *, pretty: bool) -> str | None:
    try:
        return str(tree.sql(dialect=dialect, pretty=pretty, comments=False))
    except RecursionError:
        return None


def _one_line(error: Exception) -> str:
    # The parser marks the place with terminal escapes, which are noise to a model.
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    return whole_words(" ".join(text.split()), 300)


@lru_cache(maxsize=1)
def _sqlglot() -> Any:
    """Import the parser on first use: it takes half a second that most requests need not pay."""
    import sqlglot

    # It logs whole statements as warnings, and statements hold what the user typed.
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)
    return sqlglot
