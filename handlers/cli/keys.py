"""``sluice keys new|add|show|revoke``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from handlers.cli.common import json_option, print_json, print_table, run, settings_of
from tasks.errors import InvalidInput, NotReady

if TYPE_CHECKING:
    from tasks.access.signing import Scope


@click.group()
def keys() -> None:
    """Make, add and list signing keys; take back what one signed, or what somebody was granted."""


def scope_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a key may sign, and the ring that it goes into."""
    options = (
        click.option("--purpose", "purposes", multiple=True, required=True,
                     help="grant, revise, narrow, checkpoint or audit:POOL; * at the end for any. Repeatable."),
        click.option("--tenant", "tenants", multiple=True, help="A tenant that it may sign grants for; * for any."),
        click.option("--subject", "subjects", multiple=True,
                     help="A subject that it may sign grants for (default: the key's name)."),
        click.option("--role", "roles", multiple=True, help="A role that it may grant."),
        click.option("--ring", type=click.Path(dir_okay=False, path_type=Path), default="ring.json", show_default=True,
                     help="The file that the public half is added to."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@keys.command()
@click.argument("name")
@scope_options
@click.option("--keys", "private", type=click.Path(dir_okay=False, path_type=Path), default="keys.json",
              show_default=True, help="The file that the private half is added to.")  # fmt: skip
@json_option
def new(*, name: str, private: Path, ring: Path, as_json: bool, **scope: Any) -> None:
    """Make a key of NAME; the older keys of that name stay valid until you take them out of the ring.

    The new key goes first in both files, so it signs from the next start on. Give the ring to every process before.
    """
    from scaling.keyfiles import add as make

    made = make(name, _scope(name, scope), private=private, ring=ring)
    if as_json:
        print_json({"kid": made, "keys": str(private), "ring": str(ring)})
        return
    click.echo(f"{made}: private half in {private} (keep it), public half in {ring} (give it to every process)")
    click.echo(f"pipeline.yaml:\n  signing: {{keys: [{private}], ring: {ring}}}", err=True)


@keys.command()
@click.argument("source")
@scope_options
@json_option
def add(*, source: str, ring: Path, as_json: bool, **scope: Any) -> None:
    """Put a key of AWS KMS into the ring: kms://REGION/KEY_ID?name=NAME, of the spec ECC_NIST_EDWARDS25519.

    Its public half is fetched, which needs kms:GetPublicKey. Its private half stays where it is: name the same SOURCE
    in signing.keys of whoever is to sign with it. Give the ring to every process before.
    """
    from scaling.keyfiles import trust
    from tasks.access.signing import PublicKey
    from tasks.access.sources import KmsSigner
    from tasks.stores.secrets import aws_client

    if not source.startswith("kms://"):
        raise InvalidInput(
            "SOURCE: name a key of AWS KMS, kms://REGION/KEY_ID?name=NAME; `sluice keys new` makes others"
        )
    found = KmsSigner(source, aws_client)
    key = PublicKey(found.kid, found.public, _scope(found.kid.rpartition(".")[0], scope))
    trust(key, ring)
    if as_json:
        print_json({"kid": key.kid, "keys": source, "ring": str(ring)})
        return
    click.echo(f"{key.kid}: private half in KMS, public half in {ring} (give it to every process)")
    click.echo(f"pipeline.yaml:\n  signing: {{keys: ['{source}'], ring: {ring}}}", err=True)


def _scope(name: str, given: dict[str, Any]) -> Scope:
    """Return what the key of ``name`` may sign; raises :class:`InvalidInput` where a part is missing."""
    from tasks.access.signing import GRANT, Scope

    if GRANT in given["purposes"]:
        given["subjects"] = given["subjects"] or (name,)
        if not given["tenants"] or not given["roles"]:
            raise InvalidInput("--tenant, --role: a key for grants needs at least one of each; * stands for any")
    return Scope(**given)


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
