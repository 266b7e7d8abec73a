"""Who may do what: Cedar policies, read once and validated, deny by default.

A decision hangs on roles, tenant, action and resource, on nothing else (the schema sees to it), and policies do not
change while a process runs. So each decision is made by the engine once, in about 0.1 ms, and remembered. Those of the
packaged policies are made before they are packaged: a process that needs no others never starts the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from tasks.contracts.base import sha256
from tasks.errors import SettingsError

if TYPE_CHECKING:
    import cedarpy

PACKAGED: Final = Path(__file__).with_name("policies")
SCHEMA: Final = PACKAGED / "schema.cedarschema"
DECISIONS: Final = PACKAGED / "decisions.json"
"""What the packaged policies decide. `python -m tests.support.decisions` writes it anew after a change of them."""
_REMEMBERED: Final = 10_000


class Act(StrEnum):
    """What a policy decides on."""

    REQUEST_SUBMIT = "request:submit"
    REQUEST_READ = "request:read"
    REQUEST_CANCEL = "request:cancel"
    SESSION_READ = "session:read"
    SESSION_DELETE = "session:delete"
    ATTACHMENT_READ = "attachment:read"
    AGENT_INVOKE = "agent:invoke"
    TOOL_USE = "tool:use"
    INTENT_OVERRIDE = "intent:override"
    MODEL_OVERRIDE = "model:override"
    ESCALATION_ANSWER = "escalation:answer"
    AUDIT_READ = "audit:read"
    MODEL_PROMOTE = "model:promote"
    DLQ_REDRIVE = "dlq:redrive"


_KINDS: Final[Mapping[Act, str]] = {
    Act.AGENT_INVOKE: "Agent",
    Act.TOOL_USE: "Tool",
    Act.INTENT_OVERRIDE: "Intent",
    Act.MODEL_OVERRIDE: "Model",
    Act.MODEL_PROMOTE: "Deployment",
}


class Question(msgspec.Struct, frozen=True):
    """May ``roles`` of ``tenant`` do ``act`` to ``name``, which belongs to ``owner`` (default: the same tenant)?

    ``name`` is an agent type, a tool, an intent or a model, else empty: then the tenant itself is acted on.
    """

    roles: tuple[str, ...]
    tenant: str
    act: Act
    name: str = ""
    owner: str | None = None

    @property
    def resource(self) -> tuple[str, str]:
        """Return kind and id of what is acted on."""
        kind = _KINDS.get(self.act, "Tenant")
        return kind, self.name or ("deployment" if kind == "Deployment" else self.owner or self.tenant)

    def spelt(self) -> str:
        """Return the question as an error or a record says it."""
        kind, name = self.resource
        return f"{self.act.value} on {kind.lower()} {name!r}"


class Answer(msgspec.Struct, frozen=True):
    """``policies`` are the ids of the policies that decided; none where nothing permits it. ``errors`` are Cedar's."""

    allowed: bool
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    def because(self) -> str:
        """Return why, for a person."""
        if self.errors:
            return "; ".join(self.errors)
        if self.policies:
            return f"{'permitted' if self.allowed else 'forbidden'} by {', '.join(self.policies)}"
        return "no policy permits it"


class Engine(Protocol):
    """What decides."""

    def decide(self, question: Question) -> Answer:
        """Return the answer."""


class Policy:
    """The policies of one directory, and what they decided. Make it with :func:`load_policy`."""

    def __init__(self, engine: Engine, files: Sequence[Path]) -> None:
        self._engine = engine
        self._known: dict[Question, Answer] = {}
        self.files = tuple(files)

    def decide(self, question: Question) -> Answer:
        """Return the answer; remembered."""
        known = self._known.get(question)
        if known is None:
            known = self._engine.decide(question) if _is_text(question) else _NO_TEXT
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[question] = known
        return known


_NO_TEXT: Final = Answer(allowed=False, errors=("its name is not valid Unicode",))


def _is_text(question: Question) -> bool:
    """Tell whether the name is one at all: a model can call for a tool by half a surrogate pair."""
    try:
        question.name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Cedar:
    """The engine. ``texts`` are policies that were validated against ``schema``."""

    def __init__(self, texts: Sequence[str], schema: cedarpy.Schema) -> None:
        import cedarpy

        self._policies = cedarpy.PolicySet.from_str("\n".join(texts))
        self._schema = schema

    def decide(self, question: Question) -> Answer:
        """See :class:`Engine`."""
        import cedarpy

        kind, name = question.resource
        caller = {"type": "Caller", "id": "caller"}
        owner = {} if kind == "Deployment" else {"tenant": question.owner or question.tenant}
        entities = [
            _entity(caller, {"tenant": question.tenant}, [{"type": "Role", "id": role} for role in question.roles]),
            _entity({"type": kind, "id": name}, owner),
        ]
        request = {
            "principal": caller,
            "action": {"type": "Action", "id": question.act.value},
            "resource": {"type": kind, "id": name},
            "context": {},
        }
        found = cedarpy.is_authorized(request, self._policies, entities, schema=self._schema)
        named: Mapping[str, str] = found.diagnostics.id_annotations_by_reason
        return Answer(
            allowed=found.allowed,
            policies=tuple(sorted(named.get(reason, reason) for reason in found.diagnostics.reasons)),
            errors=tuple(map(str, found.diagnostics.errors)),
        )


class Decisions(msgspec.Struct, frozen=True):
    """What Cedar said of the packaged policies: by role and action the policies that permit it.

    It holds for the policies with this ``digest`` and no others, and for whatever belongs to the caller's own tenant:
    they look at nothing else. A test asks Cedar about every set of roles.
    """

    digest: str
    permits: dict[str, dict[Act, tuple[str, ...]]]


class Table:
    """Decides by :class:`Decisions`, and has ``engine`` made where these say nothing: Cedar takes 50 ms to start."""

    def __init__(self, decisions: Decisions, engine: Callable[[], Engine]) -> None:
        self._permits = decisions.permits
        self._engine = engine

    def decide(self, question: Question) -> Answer:
        """See :class:`Engine`."""
        if question.owner not in (None, question.tenant):
            return self._engine().decide(question)
        policies = {name for role in question.roles for name in self._permits.get(role, {}).get(question.act, ())}
        return Answer(allowed=bool(policies), policies=tuple(sorted(policies)))


def _entity(uid: dict[str, str], attributes: dict[str, str], parents: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    return {"uid": uid, "attrs": attributes, "parents": list(parents)}


def load_policy(folder: Path | None = None) -> Policy:
    """Read and validate the policy files (``*.cedar``) of ``folder``, by default the packaged ones.

    Raises:
        SettingsError: there are none, or one is wrong; the message names the file and what is wrong.
    """
    chosen = folder or PACKAGED
    files = sorted(chosen.glob("*.cedar")) if chosen.is_dir() else []
    if not files:
        raise SettingsError(f"policy.dir: {chosen} holds no policy files (*.cedar); without any, nothing is allowed")
    texts = [_text(file) for file in files]
    schema = _text(SCHEMA)
    if folder is None:
        known = msgspec.json.decode(DECISIONS.read_bytes(), type=Decisions)
        if known.digest == digest_of(texts, schema):
            return Policy(Table(known, cache(partial(cedar, files, texts, schema))), files)
    return Policy(cedar(files, texts, schema), files)


def cedar(files: Sequence[Path], texts: Sequence[str], schema_text: str) -> Cedar:
    """Return the engine for policies, after it has validated them; errors as in :func:`load_policy`."""
    import cedarpy

    schema = cedarpy.Schema.from_str(schema_text)
    for file, text in zip(files, texts, strict=True):
        _check(file, text, schema)
    return Cedar(texts, schema)


def digest_of(texts: Sequence[str], schema: str) -> str:
    """Return what :class:`Decisions` name the policies by."""
    return sha256("\0".join([*texts, schema]).encode())


def decisions(engine: Engine, roles: Iterable[str], digest: str) -> Decisions:
    """Return what ``engine`` says of each of ``roles``, for :data:`DECISIONS`."""

    def permits(role: str) -> dict[Act, tuple[str, ...]]:
        answers = {act: engine.decide(Question((role,), "tenant", act, "name")) for act in Act}
        return {act: answer.policies for act, answer in answers.items() if answer.allowed}

    return Decisions(digest, {role: permits(role) for role in roles})


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from error


def _check(file: Path, text: str, schema: cedarpy.Schema) -> None:
    import cedarpy

    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise SettingsError(f"{file}: {error}") from None
    found = cedarpy.validate_policies(text, schema)
    if not found.validation_passed:
        raise SettingsError(f"{file}: {'; '.join(map(str, found.errors))}")
