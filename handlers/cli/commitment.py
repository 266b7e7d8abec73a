"""``sluice audit commitment``."""

from __future__ import annotations

import re
import sys

import click

from handlers.cli.common import json_option, print_json, settings_of
from tasks.errors import IntegrityError, InvalidInput, NotReady

_MARK = re.compile(r"\[redacted:([a-z0-9_]{1,40})/([0-9a-f]{20})\]")


@click.command()
@click.option("--tenant", default="default", show_default=True, help="Whose record it stands in.")
@click.option("--field", help="What the mark says before its slash, as api_key or token.")
@click.option("--mark", help="A mark to check, as [redacted:api_key/…]; exit code 5 where it is of another value.")
@json_option
@click.pass_context
def commitment(ctx: click.Context, *, tenant: str, field: str | None, mark: str | None, as_json: bool) -> None:
    """Show the commitment to the value on standard input, or check that a mark in the audit was made of it."""
    from tasks.access.commitments import KEY_ENV, is_guessable, load

    found = _MARK.fullmatch(mark.strip()) if mark else None
    if (mark and not found) or (field is None) == (mark is None):
        raise click.UsageError("give either --field or a whole --mark, as [redacted:api_key/0123…]")
    field = found[1] if found else str(field)
    commitments = load(settings_of(ctx).auditing)
    if commitments is None:
        raise NotReady(f"no commitment key: set {KEY_ENV} or auditing.commitment_key_file")
    value = sys.stdin.read().removesuffix("\n")
    if is_guessable(value):
        raise InvalidInput("the value is short, or has no letter: no commitment is made to what could be guessed")
    made = commitments.of(value, tenant=tenant, field=field)
    matches = made == found[2] if found else None
    if as_json:
        print_json({"tenant": tenant, "field": field, "commitment": made, "matches": matches})
    elif found is None:
        click.echo(f"[redacted:{field}/{made}]")
    else:
        click.echo("it was this value" if matches else "it was another value, field or tenant, or another key")
    if matches is False:
        ctx.exit(IntegrityError.exit_code)
