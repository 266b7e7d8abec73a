"""Attachments: what a request brought along, for tools to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from tasks import keys
from tasks.agents.tools.base import Effect, Tool, ToolArguments, ToolContext, ToolResult
from tasks.errors import NotFound, StoreError, ToolError, ToolRefused, ToolUnavailable
from tasks.settings import AttachmentSettings
from tasks.stores.objects import ObjectStore

_PAGE: Final = 6000
"""Characters that one call returns: it fits into what an agent gets to read of a result."""


class AttachmentStore:
    """Reads the attachments of requests, never more than one is allowed to hold."""

    def __init__(self, store: ObjectStore, settings: AttachmentSettings) -> None:
        self._store = store
        self._settings = settings

    async def read(self, tenant: str, allowed: Sequence[str], name: str) -> bytes:
        """Return the bytes of ``name``, one of ``allowed``, which are the keys that the request of ``tenant`` names.

        Raises:
            ToolRefused: it is not one of them, is not the tenant's, or of no type or size that may be read.
            ToolError: it is not there.
        """
        if name not in allowed:
            raise ToolRefused(f"this request has no attachment {name!r}; it has {', '.join(allowed) or 'none'}")
        if not keys.is_attachment(tenant, name):
            raise ToolRefused(f"attachment {name!r} does not lie under {keys.attachment_prefix(tenant)}")
        types = self._settings.types
        if not name.lower().endswith(tuple(types)):
            raise ToolRefused(f"attachment {name!r} is of no type that can be read; those are {', '.join(types)}")
        data = bytearray()
        try:
            async for piece in self._store.read(name):
                data += piece
                if len(data) > self._settings.max_bytes:
                    raise ToolRefused(f"attachment {name!r} is larger than {self._settings.max_bytes} bytes")
        except NotFound as error:
            raise ToolError(f"attachment {name!r} is not there") from error
        except StoreError as error:
            raise ToolUnavailable(f"attachment {name!r} cannot be read now") from error
        return bytes(data)


class AttachmentArguments(ToolArguments):
    """``offset`` counts characters: a long attachment is read in pages."""

    name: Annotated[str, Field(min_length=1, max_length=1024, description="one of the request's attachments")]
    offset: Annotated[int, Field(ge=0, description="where to go on reading")] = 0


class AttachmentPage(ToolResult):
    """Part of an attachment. ``next_offset`` is where it goes on, none at its end; ``characters`` is its length."""

    text: str
    characters: int
    next_offset: int | None = None


class ReadAttachment(Tool[AttachmentArguments]):
    """The tool for one request, which brought ``attachments``."""

    name = "read_attachment"
    arguments = AttachmentArguments
    effect = Effect.READ

    def __init__(self, attachments: Sequence[str]) -> None:
        self.description = f"Read an attachment of this request, as text. Attachments: {', '.join(attachments)}."

    async def call(self, arguments: AttachmentArguments, context: ToolContext) -> AttachmentPage:
        """Return a page of the attachment.

        Raises:
            ToolError: it cannot be read, or is no text.
        """
        data = await context.attachment(arguments.name)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ToolRefused(f"attachment {arguments.name!r} is not text in UTF-8") from error
        if "\0" in text:
            raise ToolRefused(f"attachment {arguments.name!r} is not text")
        end = arguments.offset + _PAGE
        return AttachmentPage(
            text=text[arguments.offset : end], characters=len(text), next_offset=end if end < len(text) else None
        )
