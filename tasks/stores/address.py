"""Where a Redis-protocol server is, from its URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct, structs

from tasks.errors import SettingsError

if TYPE_CHECKING:
    import ssl

_CHECKS: Final = frozenset({"required", "none"})


class Address(Struct, frozen=True):
    """``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS, or ``unix:///path[?db=N]``.

    ``rediss`` understands ``?ssl_cert_reqs=none`` and ``?ssl_ca_certs=FILE``.
    """

    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    username: str = ""
    password: str = ""
    secure: bool = False
    verified: bool = True
    authorities: str | None = None
    vouched: str = ""
    """The name on the certificate of a server that was told by its number."""

    @classmethod
    def of(cls, url: str) -> Address:
        """Return the address that ``url`` spells; raises :class:`SettingsError` without repeating its password."""
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
        except ValueError as error:
            raise SettingsError(f"redis_url: {error}") from error
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise SettingsError(
                f"redis_url: begins with redis://, rediss:// or unix://, not {parts.scheme or 'that'!r}"
            )
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        database = options.pop("db", "") or ("" if parts.scheme == "unix" else parts.path.strip("/"))
        checks = options.pop("ssl_cert_reqs", "required").removeprefix("CERT_").lower()
        authorities = options.pop("ssl_ca_certs", None)
        if options or checks not in _CHECKS or not (database or "0").isdigit():
            wrong = ", ".join(options) or ("ssl_cert_reqs" if checks not in _CHECKS else f"database {database!r}")
            raise SettingsError(f"redis_url: not understood: {wrong}")
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port,
            path=unquote(parts.path) if parts.scheme == "unix" else "",
            database=int(database or 0),
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            secure=parts.scheme == "rediss",
            verified=checks == "required",
            authorities=authorities,
        )

    def elsewhere(self, said: str) -> Address:
        """Return the server that ``MOVED SLOT HOST:PORT`` names, to be spoken to like this one."""
        host, _, port = said.split()[2].rpartition(":")
        # An empty host is that of whoever said it.
        return structs.replace(self, host=host or self.host, port=int(port), vouched=self.certified)

    @property
    def certified(self) -> str:
        """Return the name that the server's certificate has to have."""
        is_number = ":" in self.host or self.host.replace(".", "").isdigit()
        return self.vouched if self.vouched and is_number else self.host

    def tls(self) -> ssl.SSLContext | None:
        """Return how to encrypt, or None."""
        if not self.secure:
            return None
        import ssl

        context = ssl.create_default_context(cafile=self.authorities)
        if not self.verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def greeting(self) -> list[tuple[str | int, ...]]:
        """Return the commands that begin a connection."""
        hello: tuple[str | int, ...] = ("HELLO", 3)
        if self.password:
            hello = (*hello, "AUTH", self.username or "default", self.password)
        return [hello, ("SELECT", self.database)] if self.database else [hello]

    def __str__(self) -> str:
        """Return it without secrets."""
        return self.path or f"{self.host}:{self.port}"
