"""The tools that agents use."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from tasks.settings.base import Count, Positive, Section

BUILT_IN_TOOLS: Final = ("sql_parser", "api_caller", "read_attachment")
TOOL_ENTRY_POINTS: Final = "sluice.tools"
"""The group of entry points under which packages register further tools, each by its name."""

ServerName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,30}\Z")]
_MCP_SEPARATOR: Final = "__"


class SqlToolSettings(Section, frozen=True, kw_only=True):
    """``database`` is a SQLite file or a SQLAlchemy URL, in which ``${NAME}`` stands for an environment variable.

    By default a small sample shop is made in memory. ``allowed_functions`` adds to the SQL functions that queries of a
    server may call. ``max_bytes`` bounds the rows of one result.
    """

    database: str | None = None
    allowed_functions: tuple[str, ...] = ()
    max_rows: Count = 50
    max_bytes: Count = 64 * 1024
    timeout_seconds: Positive = 5


class ApiToolSettings(Section, frozen=True, kw_only=True):
    """``allowed_hosts`` are ``host`` or ``host:port``; nothing else is called. Deny by default.

    ``headers`` are sent to one entry of ``allowed_hosts`` each; ``${NAME}`` in a value stands for an environment
    variable, which no model gets to see. ``idempotent_hosts`` honour ``Idempotency-Key``: a POST there may be repeated.
    """

    allowed_hosts: tuple[str, ...] = ()
    allowed_methods: tuple[str, ...] = ("GET", "HEAD")
    headers: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    idempotent_hosts: tuple[str, ...] = ()
    max_redirects: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    timeout_seconds: Positive = 10
    max_bytes: Count = 64 * 1024


class AttachmentSettings(Section, frozen=True, kw_only=True):
    """What a tool may read of a request's attachments: ``types`` are endings of names, all of text."""

    max_bytes: Count = 16 * 1024 * 1024
    types: tuple[str, ...] = (
        ".txt",
        ".md",
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".yaml",
        ".yml",
        ".xml",
        ".html",
        ".log",
    )


class McpServerSettings(Section, frozen=True, kw_only=True):
    """An MCP server: ``command`` starts one that speaks over its standard streams, ``url`` is one that is there.

    ``${NAME}`` in ``env`` and ``headers`` stands for an environment variable; of this process's environment a command
    gets no more than that and what it needs to start. ``read_only`` and ``idempotent`` name tools that may be repeated.
    """

    command: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    url: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    read_only: tuple[str, ...] = ()
    idempotent: tuple[str, ...] = ()
    connect_seconds: Positive = 10
    timeout_seconds: Positive = 30

    def __post_init__(self) -> None:
        """Raise :class:`ValueError` unless there is one way to the server."""
        if bool(self.command) == bool(self.url):
            raise ValueError("an MCP server needs either command or url")


class ToolSettings(Section, frozen=True, kw_only=True):
    """Settings of tools. ``timeout_seconds`` is the limit of one call of a tool that a package brings."""

    sql_parser: SqlToolSettings = SqlToolSettings()
    api_caller: ApiToolSettings = ApiToolSettings()
    attachments: AttachmentSettings = AttachmentSettings()
    mcp: dict[ServerName, McpServerSettings] = msgspec.field(default_factory=dict)
    timeout_seconds: Positive = 30

    def knows(self, tool: str) -> bool:
        """Tell whether ``tool`` is built in or of an MCP server. Else a package has to register it."""
        return tool in BUILT_IN_TOOLS or self.mcp_server(tool) is not None

    def mcp_server(self, tool: str) -> str | None:
        """Return the MCP server of ``tool``, which is spelt ``server__tool``; None where it is of none."""
        server, separator, name = tool.partition(_MCP_SEPARATOR)
        return server if separator and name and server in self.mcp else None
