"""``sluice policy check``."""

from __future__ import annotations

import click

from handlers.cli.common import json_option, print_json, settings_of
from tasks.access.policy import Act
from tasks.errors import Denied, InvalidInput


@click.group()
def policy() -> None:
    """Check the policy files, and explain what they decide."""


@policy.command()
@click.argument("action", required=False, type=click.Choice([act.value for act in Act]))
@click.argument("resource", required=False, default="")
@click.option("--role", "roles", multiple=True, help="A role of the caller; several times for several.")
@click.option("--tenant", default="default", show_default=True, help="The caller's tenant.")
@click.option("--owner", help="The tenant that the resource belongs to (default: the caller's).")
@json_option
@click.pass_context
def check(
    ctx: click.Context, *, action: str | None, resource: str, roles: tuple[str, ...], tenant: str, owner: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Validate the policy files; with ACTION, tell whether --role may do it to RESOURCE, and which policy says so.

    RESOURCE is the agent type, tool, intent or model of an action that has one: `sluice policy check tool:use
    sql_parser --role user`. Exit code 77 where it is denied.
    """
    from tasks.access.policy import Question, load_policy

    settings = settings_of(ctx)
    policies = load_policy(settings.policy.dir)
    files = [str(file) for file in policies.files]
    if action is None:
        if roles:
            raise InvalidInput("ACTION: is missing: what may the role do?")
        if as_json:
            print_json({"ok": True, "files": files})
        else:
            click.echo(f"{len(files)} policy files hold: {', '.join(files)}")
        return 0
    question = Question(roles, tenant, Act(action), resource, owner)
    answer = policies.decide(question)
    if as_json:
        print_json(
            {
                "allowed": answer.allowed,
                "roles": roles,
                "tenant": tenant,
                "action": action,
                "resource": ":".join(question.resource),
                "policies": answer.policies,
                "because": answer.because(),
                "files": files,
            }
        )
    else:
        verdict = "allowed" if answer.allowed else "denied"
        click.echo(f"{verdict}: {', '.join(roles) or 'no role'} of {tenant}: {question.spelt()}: {answer.because()}")
    return 0 if answer.allowed else Denied.exit_code
