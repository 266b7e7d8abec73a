"""Keys of the data bucket."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

UPLOADS: Final = "uploads/"
"""The prefix in the data bucket under which an object that appears becomes requests."""
MANIFESTS: Final = "manifests/"
"""The prefix of what became of each line of an uploaded object."""
_ESCALATION: Final = re.compile(r"escalations/[^/]+/([^/]+)\.r([0-9]+)(\.answer)?\.json")


def result(tenant: str, request_id: str, revision: int = 1) -> str:
    """Return the key of a result revision in the data bucket."""
    suffix = "" if revision == 1 else f".r{revision}"
    return f"results/{tenant}/{request_id}{suffix}.json"


def plan(tenant: str, request_id: str, revision: int = 1) -> str:
    """Return the key of the plan of a revision of a request."""
    return f"plans/{tenant}/{request_id}.r{revision}.json"


def step_result(tenant: str, request_id: str, revision: int, step: str) -> str:
    """Return the key of the result of one step of a plan."""
    return f"steps/{tenant}/{request_id}.r{revision}/{step}.json"


def body(tenant: str, request_id: str, digest: str) -> str:
    """Return the key of a request body that was too large for its message."""
    return f"bodies/{tenant}/{request_id}~{digest}.json"


def manifest(origin: str, part: int) -> str:
    """Return the key of part ``part``, from 1, of what became of an object that asked for requests."""
    return f"{MANIFESTS}{origin}/{part:06d}.jsonl"


def session(tenant: str, session_id: str, version: int) -> str:
    """Return the key of one version of a session."""
    return f"{session_prefix(tenant, session_id)}{version:08d}.json"


def session_prefix(tenant: str, session_id: str) -> str:
    """Return the prefix of all versions of a session. The ``~`` keeps an id of dots from being a path."""
    return f"{sessions(tenant)}{session_id}~/"


def sessions(tenant: str) -> str:
    """Return the prefix of all sessions of a tenant."""
    return f"sessions/{tenant}/"


def parse_session(key: str) -> tuple[str, int]:
    """Return session id and version; raises :class:`ValueError` where ``key`` is none of a session's version."""
    _, _, folder, name = key.split("/")
    return folder.removesuffix("~"), int(name.removesuffix(".json"))


def escalations(tenant: str) -> str:
    """Return the prefix of all escalations of a tenant, and of the answers to them."""
    return f"escalations/{tenant}/"


def escalation(tenant: str, request_id: str, revision: int) -> str:
    """Return the key that says that a person is to answer: the revision that it names is the one that escalated."""
    return f"{escalations(tenant)}{request_id}.r{revision}.json"


def escalation_answer(tenant: str, request_id: str, revision: int) -> str:
    """Return the key of a person's answer to an escalation."""
    return f"{escalations(tenant)}{request_id}.r{revision}.answer.json"


class EscalationKey(NamedTuple):
    """What the key of an escalation, or of the answer to one, says."""

    request_id: str
    revision: int
    is_answer: bool


def parse_escalation(key: str) -> EscalationKey:
    """Return the parts of the key of an escalation or its answer; raises :class:`ValueError` where it is none."""
    found = _ESCALATION.fullmatch(key)
    if not found:
        raise ValueError(f"{key!r} is not the key of an escalation")
    return EscalationKey(found[1], int(found[2]), found[3] is not None)


def journal_prefix(tenant: str, request_id: str, revision: int, step: str) -> str:
    """Return the prefix of the tool calls of one step, which is empty for a request that is no plan's."""
    return f"journal/{tenant}/{request_id}.r{revision}~{step}/"


def journal_entry(prefix: str, tool: str, digest: str, occurrence: int, state: str) -> str:
    """Return the key that says that a tool call has ``begun`` or is ``done``."""
    return f"{prefix}{tool}~{digest}~{occurrence:04d}.{state}.json"


def parse_journal_entry(prefix: str, key: str) -> tuple[str, str, int, str]:
    """Return tool, digest, occurrence and state; raises :class:`ValueError` where ``key`` is no such entry."""
    tool, digest, rest = key.removeprefix(prefix).removesuffix(".json").split("~")
    occurrence, state = rest.split(".")
    return tool, digest, int(occurrence), state


def attachment_prefix(tenant: str) -> str:
    """Return the prefix under which a tenant's attachments lie."""
    return f"attachments/{tenant}/"


def is_attachment(tenant: str, key: str) -> bool:
    """Tell whether ``key`` lies under a tenant's attachments, and says so plainly."""
    parts = key.split("/")
    return key.startswith(attachment_prefix(tenant)) and not {"", ".", ".."} & set(parts) and key.isprintable()


def model_versions(family: str) -> str:
    """Return the prefix of all published versions of a family of intent models."""
    return f"models/{family}/versions/"


def model_file(family: str, version: str, name: str) -> str:
    """Return the key of one file of a published version."""
    return f"{model_versions(family)}{version}/{name}"


def promotions(family: str) -> str:
    """Return the prefix of the log of a family's promotions."""
    return f"models/{family}/promotions/"


def promotion(family: str, number: int) -> str:
    """Return the key of entry ``number`` of the log; the first is 1."""
    return f"{promotions(family)}{number:08d}.json"
