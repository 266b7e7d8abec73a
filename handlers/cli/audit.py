"""``sluice audit show|verify``."""

from __future__ import annotations

import click

from handlers.cli.common import json_option, print_json, print_table, run, settings_of
from tasks.errors import IntegrityError, NotFound
from tasks.stores.s3 import audit_store


@click.group()
def audit() -> None:
    """Read and verify the audit trail."""


@audit.command()
@click.argument("request_id", required=False)
@click.option("--tenant", help="Only this tenant's.")
@json_option
@click.pass_context
def show(ctx: click.Context, *, request_id: str | None, tenant: str | None, as_json: bool) -> None:
    """Show what happened to REQUEST_ID, or everything, by time."""
    from tasks.audit.verify import read

    records = run(read(audit_store(settings_of(ctx)), request_id=request_id))
    found = [record for record in records if tenant in (None, record.tenant)]
    if request_id and not found:
        raise NotFound(f"no audit record of request {request_id!r}")
    if as_json:
        print_json([record.to_dict() for record in found])
        return
    print_table(
        f"Audit of {request_id or 'everything'}",
        ("time", "action", "actor", "request", "resource", "decision", "reason"),
        [(r.time.isoformat(), r.action, r.actor, r.request_id, r.resource, r.decision, r.reason) for r in found],
    )


@audit.command()
@json_option
@click.pass_context
def verify(ctx: click.Context, *, as_json: bool) -> None:
    """Check every chain of the audit bucket; exit code 5 where one does not hold."""
    from tasks.audit.verify import verify as check

    found = run(check(audit_store(settings_of(ctx))))
    faults = [{"stream": f.stream, "sequence": f.sequence, "problem": f.problem} for f in found.faults]
    if as_json:
        numbers = {"streams": found.streams, "segments": found.segments, "records": found.records}
        print_json({"ok": found.ok, **numbers, "faults": faults})
    else:
        click.echo(f"{found.records} records in {found.segments} segments of {found.streams} streams")
        for fault in faults:
            click.echo(f"  {fault['stream']} #{fault['sequence']}: {fault['problem']}")
    if not found.ok:
        ctx.exit(IntegrityError.exit_code)
    if not as_json:
        click.echo("every chain holds (unsigned: a missing last segment or a missing stream would not show)")
