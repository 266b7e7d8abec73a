"""How others are told by HTTP that their requests have ended."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tasks.settings.base import Count, Positive, Section


class CallbackSettings(Section, frozen=True, kw_only=True):
    """``secrets`` are sources as in ``signing.keys``, the newest in front. Without one no callback is accepted.

    Each tenant's secret is derived from them, and all of them sign, so that an old one can be replaced.

    After ``attempts`` a callback is given up. The pause between two begins with ``retry_seconds`` and doubles up to
    ``max_retry_seconds``. ``max_bytes`` bounds its body. ``allowed_hosts``, where there are any, are the only ones;
    ``private_hosts`` may have addresses that are not public. Both are ``host`` or ``host:port``.
    """

    secrets: tuple[str, ...] = ()
    attempts: Count = 16
    retry_seconds: Positive = 10
    max_retry_seconds: Positive = 6 * 3600
    timeout_seconds: Positive = 15
    max_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 256 * 1024
    allow_http: bool = False
    allowed_hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()

    def pause(self, attempt: int) -> float:
        """Return the seconds between attempt number ``attempt`` and the one after it."""
        return float(min(self.retry_seconds * 2.0 ** min(attempt - 1, 60), self.max_retry_seconds))
