"""``sluice keys new|show|revoke``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from handlers.cli.common import json_option, print_json, print_table, run, settings_of
from tasks.errors import InvalidInput, NotReady


@click.group()
def keys() -> None:
    """Make and list signing keys; take back what one signed, or what somebody was granted."""


@keys.command()
@click.argument("name")
@click.option("--purpose", "purposes", multiple=True, required=True,
              help="grant, revise, narrow, checkpoint or audit:POOL; * at the end for any. Repeatable.")  # fmt: skip
@click.option("--tenant", "tenants", multiple=True, help="A tenant that it may sign grants for; * for any.")
@click.option("--subject", "subjects", multiple=True, help="A subject that it may sign grants for (default: NAME).")
@click.option("--role", "roles", multiple=True, help="A role that it may grant.")
@click.option("--keys", "private", type=click.Path(dir_okay=False, path_type=Path), default="keys.json",
              show_default=True, help="The file that the private half is added to.")  # fmt: skip
@click.option("--ring", type=click.Path(dir_okay=False, path_type=Path), default="ring.json", show_default=True,
              help="The file that the public half is added to.")  # fmt: skip
@json_option
def new(*, name: str, private: Path, ring: Path, as_json: bool, **scope: Any) -> None:
    """Make a key of NAME; the older keys of that name stay valid until you take them out of the ring.

    The new key goes first in both files, so it signs from the next start on. Give the ring to every process before.
    """
    from scaling.keyfiles import add
    from tasks.access.signing import GRANT, Scope

    if GRANT in scope["purposes"]:
        scope["subjects"] = scope["subjects"] or (name,)
        if not scope["tenants"] or not scope["roles"]:
            raise InvalidInput("--tenant, --role: a key for grants needs at least one of each; * stands for any")
    made = add(name, Scope(**scope), private=private, ring=ring)
    if as_json:
        print_json({"kid": made, "keys": str(private), "ring": str(ring)})
        return
    click.echo(f"{made}: private half in {private} (keep it), public half in {ring} (give it to every process)")
    click.echo(f"pipeline.yaml:\n  signing: {{keys: [{private}], ring: {ring}}}", err=True)


@keys.command()
@json_option
@click.pass_context
def show(ctx: click.Context, *, as_json: bool) -> None:
    """Show the keys of the ring, what each may sign, and which of them this machine signs with."""
    from tasks.access.sources import load_keys

    keyset = load_keys(settings_of(ctx))
    own = {signer.kid for signer in keyset.signers}
    found = [
        {
            "kid": key.kid,
            "own": key.kid in own,
            "purposes": key.scope.purposes,
            "tenants": key.scope.tenants,
            "subjects": key.scope.subjects,
            "roles": key.scope.roles,
        }
        for key in keyset.ring
    ]
    if as_json:
        print_json(found)
        return
    print_table("Keys", list(found[0]) if found else (), [list(map(_spelt, key.values())) for key in found])


@keys.command("callback-secret")
@click.option("--tenant", default="default", show_default=True)
@json_option
@click.pass_context
def callback_secret(ctx: click.Context, *, tenant: str, as_json: bool) -> None:
    """Print what the callbacks of a tenant are signed with, for its receivers to check; see docs/callbacks.md."""
    from tasks.access.webhooks import load_masters, secret_of, spelt

    masters = load_masters(settings_of(ctx).callbacks)
    if not masters:
        raise NotReady("callbacks.secrets: there is none: `openssl rand -base64 32 > FILE` makes one, name the file")
    secrets = [spelt(secret_of(master, tenant)) for master in masters]
    if as_json:
        print_json({"tenant": tenant, "secrets": secrets})
    else:
        click.echo("\n".join(secrets))


@keys.command()
@click.option("--kid", help="Everything that this key signed.")
@click.option("--subject", help="Everything that this subject, or operator, was granted (with --tenant).")
@click.option("--request", "request_id", help="The grants of one request (with --tenant).")
@click.option("--tenant", default="default", show_default=True)
@click.option("--undo", is_flag=True, help="Take the entry off the list.")
@json_option
@click.pass_context
def revoke(
    ctx: click.Context, *, kid: str | None, subject: str | None, request_id: str | None, tenant: str, undo: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Void what was granted until now. It holds everywhere grants.revocation_seconds later."""
    from tasks import keys as names
    from tasks.contracts.base import utc_now
    from tasks.stores.connect import connect

    entries = [
        *([names.revoked_key(kid)] if kid else []),
        *([names.revoked_subject(tenant, subject)] if subject else []),
        *([names.revoked_request(tenant, request_id)] if request_id else []),
    ]
    if len(entries) != 1:
        raise InvalidInput("name one of --kid, --subject and --request")
    [entry] = entries
    settings = settings_of(ctx)
    now = utc_now()

    async def write() -> bool:
        async with connect(settings) as stores:
            if undo:
                return await stores.revocations.restore(entry)
            await stores.revocations.revoke(entry, until=now.timestamp())
            return True

    done = run(write())
    if as_json:
        print_json({"entry": entry, "revoked": not undo, "until": None if undo else now.isoformat(), "changed": done})
    elif undo:
        click.echo(f"{entry}: taken off the list" if done else f"{entry}: was not on the list")
    else:
        click.echo(f"{entry}: what was granted until {now.isoformat()} is void")


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return ", ".join(value) if isinstance(value, tuple) else str(value)
