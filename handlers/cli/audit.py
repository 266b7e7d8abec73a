"""``sluice audit show|search|verify|prove``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlers.cli.commitment import commitment
from handlers.cli.common import bar, json_option, print_json, print_table, run, settings_of, visible
from tasks.errors import IntegrityError, InvalidInput, NotFound
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.access.signing import KeyRing
    from tasks.audit.faults import Verification
    from tasks.audit.verify import Options
    from tasks.contracts.audit import AuditRecord
    from tasks.stores.objects import ObjectStore

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]

copy_option = click.option("--copy", type=_FOLDER, help="Read a copy of the bucket in this folder, and no server.")
ring_option = click.option("--ring", help="The public keys: a source as in signing.ring (default: that).")
tenant_option = click.option("--tenant", help="Only this tenant's.")


@click.group()
def audit() -> None:
    """Read and verify the audit trail."""


audit.add_command(commitment)


@audit.command()
@click.argument("request_id", required=False)
@tenant_option
@copy_option
@ring_option
@json_option
@click.pass_context
def show(
    ctx: click.Context,
    *,
    request_id: str | None,
    tenant: str | None,
    copy: Path | None,
    ring: str | None,
    as_json: bool,
) -> None:
    """Show what happened to REQUEST_ID, or everything, by time."""
    from tasks.audit.read import read

    settings = settings_of(ctx)
    keyring = _own_ring(settings, ring)
    records = run(read(_store(settings, copy), request_id=request_id, ring=keyring, skipped=_not_shown))
    found = [record for record in records if tenant in (None, record.tenant)]
    if request_id and not found:
        raise NotFound(f"no audit record of request {request_id!r}")
    _print_records(f"Audit of {request_id or 'everything'}", found, as_json=as_json)


@audit.command()
@tenant_option
@click.option("--actor", help="Only what this one did.")
@click.option("--action", help="Only this, such as permission.violation.")
@click.option(
    "--from", "since", type=click.DateTime(_TIMES), help="Not before this time (UTC, unless it says another)."
)
@click.option("--to", "until", type=click.DateTime(_TIMES), help="Not after this time.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="The newest so many.")
@copy_option
@ring_option
@json_option
@click.pass_context
def search(
    ctx: click.Context,
    *,
    tenant: str | None,
    actor: str | None,
    action: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    copy: Path | None,
    ring: str | None,
    as_json: bool,
) -> None:
    """Search the records. With --from and --to only the segments of that time are read."""
    from tasks.audit.read import Wanted
    from tasks.audit.read import search as find

    wanted = Wanted(tenant=tenant, actor=actor, action=action, since=_utc(since), until=_utc(until))
    settings = settings_of(ctx)
    keyring = _own_ring(settings, ring)
    found = run(find(_store(settings, copy), wanted, limit, ring=keyring, skipped=_not_shown))
    _print_records(f"{len(found)} records", found, as_json=as_json)


@audit.command()
@click.option("--since", help="Trust this checkpoint (its number, or a file with it) and look at what came later.")
@click.option("--witness", help="Compare with the witness: its bucket, or a folder (default: auditing.witness_bucket).")
@copy_option
@ring_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context, *, since: str | None, witness: str | None, copy: Path | None, ring: str | None, as_json: bool
) -> None:
    """Check segments, checkpoints and keys of the audit bucket; exit code 5 where something does not hold."""
    from tasks.audit.verify import verify as check

    settings = settings_of(ctx)
    with bar("segments", quiet=as_json) as progress:
        options = _options(settings, since, witness, progress, copy)
        found = run(check(_store(settings, copy), _ring(settings, ring), options))
    if as_json:
        print_json({"ok": found.ok, **asdict(found)})
    else:
        _print_verdict(found)
    if not found.ok:
        ctx.exit(IntegrityError.exit_code)


@audit.command()
@click.argument("request_id")
@tenant_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file (default: - , here).")
@copy_option
@ring_option
@click.pass_context
def prove(
    ctx: click.Context,
    *,
    request_id: str,
    tenant: str | None,
    output: Path | None,
    copy: Path | None,
    ring: str | None,
) -> None:
    """Write a proof that the records of REQUEST_ID are in the ledger; docs/check_inclusion.py checks it offline."""
    from tasks.audit.prove import prove as make

    settings = settings_of(ctx)
    keyring = _ring(settings, ring)
    proof = run(make(_store(settings, copy), keyring, request_id, tenant=tenant, skipped=_not_shown))
    if output is None:
        print_json(proof)
        return
    import orjson

    output.write_bytes(orjson.dumps(proof, option=orjson.OPT_INDENT_2))
    shown = sum(len(part["records"]) for part in proof["segments"])
    click.echo(f"{shown} records of {request_id} proved in {output}", err=True)


def _store(settings: Settings, copy: Path | None) -> ObjectStore:
    from tasks.stores.folder import FolderObjectStore
    from tasks.stores.s3 import audit_store

    return FolderObjectStore(copy) if copy else audit_store(settings)


def _ring(settings: Settings, source: str | None) -> KeyRing:
    from tasks.access.sources import load_keys, load_ring

    named = source or settings.signing.ring
    return load_ring(named) if named else load_keys(settings).ring


def _own_ring(settings: Settings, source: str | None) -> KeyRing | None:
    """Return the keys to check with what is shown, None where none are configured."""
    return _ring(settings, source) if source or settings.signing.ring else None


def _not_shown(key: str, reason: str) -> None:
    click.echo(visible(f"not shown: {key}: {reason}; `sluice audit verify` says more"), err=True)


def _options(
    settings: Settings,
    since: str | None,
    witness: str | None,
    progress: Callable[[int, int], None],
    copy: Path | None,
) -> Options:
    from datetime import timedelta

    from tasks.audit.verify import Options
    from tasks.contracts.base import utc_now
    from tasks.stores.folder import FolderObjectStore
    from tasks.stores.s3 import S3ObjectStore
    from tasks.stores.versions import audit_versions

    number, kept = _since(since)
    bucket = witness or (None if copy else settings.auditing.witness_bucket)
    other: ObjectStore | None = None
    if bucket and Path(bucket).is_dir():
        other = FolderObjectStore(Path(bucket))
    elif bucket:
        other = S3ObjectStore(bucket, region=settings.region, endpoint=settings.s3_endpoint)
    expired = utc_now() - timedelta(days=settings.auditing.retention_days + 1)
    return Options(
        since=number,
        since_note=kept,
        witness=other,
        expired_before=expired,
        progress=progress,
        versions=None if copy else audit_versions(settings),
    )


def _since(since: str | None) -> tuple[int | None, bytes | None]:
    """Return the number of a checkpoint, and the checkpoint where a file has it."""
    if since is None or since.isdecimal():
        return (None if since is None else int(since)), None
    try:
        kept = Path(since).read_bytes()
        [number] = [line.removeprefix(b"number ") for line in kept.split(b"\n") if line.startswith(b"number ")]
        return int(number), kept
    except (OSError, ValueError) as error:
        raise InvalidInput(f"--since {since}: neither a number nor a file with a checkpoint") from error


def _print_verdict(found: Verification) -> None:
    click.echo(
        f"{found.records} records in {found.segments} segments, {found.checkpoints} checkpoints; "
        f"{found.unsealed} segments not sealed yet, {found.expired} expired"
    )
    for fault in found.faults:
        place = f" {fault.stream} #{fault.sequence}" if fault.sequence is not None else ""
        click.echo(visible(f"  {fault.kind}: {fault.object}{place}: {fault.reason}"))
    if found.found > len(found.faults):
        click.echo(f"  and {found.found - len(found.faults)} more")
    for caveat in found.caveats:
        click.echo(visible(f"  note: {caveat}"))
    click.echo("the audit holds" if found.ok else f"the audit does NOT hold: {found.found} faults")


def _print_records(title: str, found: Sequence[AuditRecord], *, as_json: bool) -> None:
    if as_json:
        print_json([record.to_dict() for record in found])
        return
    print_table(
        title,
        ("time", "action", "actor", "tenant", "request", "resource", "decision", "reason"),
        [
            (r.time.isoformat(), r.action, r.actor, r.tenant, r.request_id, r.resource, r.decision, r.reason)
            for r in found
        ],
    )


def _utc(time: datetime | None) -> datetime | None:
    from datetime import UTC

    return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)
