"""Sessions."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tasks.settings.base import Section


class SessionSettings(Section, frozen=True, kw_only=True):
    """``cache_seconds``: how long Redis keeps a copy of a session's newest version after its last turn. 0: none."""

    cache_seconds: Annotated[int, msgspec.Meta(ge=0)] = 3600
