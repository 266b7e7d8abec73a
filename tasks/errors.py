"""Every error that Sluice raises. One base; the class says what a caller can do about it."""

from __future__ import annotations

from typing import ClassVar


class SluiceError(Exception):
    """Something in Sluice failed.

    ``exit_code`` is what a command line ends with when this error reaches it.
    ``code`` is the stable, machine-readable name that results and JSON errors carry.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"


class InvalidInput(SluiceError):
    """The caller sent something that the contract forbids. The message names the field and the mend."""

    exit_code = 2
    code = "invalid_input"


class SettingsError(InvalidInput):
    """The configuration does not load. The message names the file and the key."""

    code = "invalid_settings"


class TooLarge(InvalidInput):
    """The call's body is larger than the door takes."""

    code = "too_large"


class Conflict(InvalidInput):
    """The id is already in use for a request with another body."""

    code = "conflict"


class QuotaExceeded(SluiceError):
    """A tenant has, or has used, as much as it may. Nothing was accepted; ``retry_seconds`` says when to try again."""

    exit_code = 75
    code = "quota_exceeded"

    def __init__(self, message: str, *, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class NotReady(SluiceError):
    """Something that Sluice needs is not running or not installed. The message says how to get it."""

    exit_code = 3
    code = "not_ready"


class AlreadyRunning(SluiceError):
    """There may be one of these, and there is. The message says which."""

    code = "already_running"


class Overloaded(SluiceError):
    """There is more work than can be done in the time that was asked for. Trying again later helps."""

    code = "overloaded"


class StoreError(SluiceError):
    """A store refused or failed an operation. Trying again may help."""

    code = "store"


class AlreadyExists(StoreError):
    """A create-once object is there already."""

    code = "already_exists"


class NotFound(StoreError):
    """The object or row is not there."""

    code = "not_found"


class ResultTimeout(SluiceError):
    """No result within the time that the caller was ready to wait."""

    exit_code = 4
    code = "timeout"


class Unreachable(StoreError):
    """A server does not answer at all."""

    code = "unreachable"


class LeaseLost(SluiceError):
    """The attempt no longer holds the lease of its request: another one has it."""

    code = "lease_lost"


class RequestEnded(SluiceError):
    """The request has its end while an attempt is at it: it was cancelled, say. Nobody wants the attempt's work."""

    code = "request_ended"


class SessionConflict(SluiceError):
    """Another request took the version of the session that this attempt wanted to write."""

    code = "session_conflict"


class NewerSchema(SluiceError):
    """A message of a newer major schema version. It is for a newer worker."""

    code = "newer_schema"


class MalformedMessage(SluiceError):
    """A queue message that no door wrote. It is quarantined."""

    code = "malformed_message"


class ForgedMessage(MalformedMessage):
    """A queue message whose grant does not vouch for it. It is quarantined, and nothing is written for it."""

    code = "grant_forged"


class Denied(SluiceError):
    """The caller's roles do not allow this. The message names the action and what is missing."""

    exit_code = 77
    code = "denied"


class Unauthenticated(Denied):
    """The call carries nothing that says who makes it."""

    code = "unauthenticated"


class IntegrityError(SluiceError):
    """Stored bytes do not match the digest or the chain that vouches for them."""

    exit_code = 5
    code = "integrity"


class BadSignature(IntegrityError):
    """A signature does not verify, or its key may not sign this."""

    code = "bad_signature"


class ModelError(SluiceError):
    """A language model could not answer. Trying again may help."""

    code = "model"


class ModelRefused(ModelError):
    """A language model's endpoint refused the request. Trying again does not help."""

    code = "model_refused"


class ModelUnavailable(ModelError):
    """A language model's endpoint takes no requests now; nothing was sent. ``retry_seconds`` says when it may again."""

    code = "model_unavailable"

    def __init__(self, message: str, *, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class LimitExceeded(SluiceError):
    """An agent used up its turns, tokens or tool calls without an answer. Trying again would use them up again."""

    code = "limit_exceeded"


class ToolError(SluiceError):
    """A tool could not do what it was asked. The agent sees the message and can react to it."""

    code = "tool"


class InvalidPlan(InvalidInput):
    """A plan whose steps cannot be run. The message names each fault and its step."""

    code = "invalid_plan"


class ToolRefused(ToolError):
    """What the agent asked of a tool is not allowed. Nothing was done."""

    code = "tool_refused"


class ToolUnavailable(ToolError):
    """What a tool needs does not answer. Nothing was done; trying again later may help."""

    code = "tool_unavailable"


class ToolFailed(ToolError):
    """What a tool called says that it failed. That is its answer: it is not asked again on a retry."""

    code = "tool_failed"


class ToolUncertain(ToolError):
    """A tool began and cannot tell whether it had its effect. It must not be tried again without care."""

    code = "tool_uncertain"


class CallInDoubt(SluiceError):
    """A call that is not idempotent was begun and its end is unknown. It is not repeated: somebody has to look."""

    code = "call_in_doubt"


class CallbackFailed(SluiceError):
    """A callback was not taken. Trying again may help, ``retry_seconds`` from now at the earliest."""

    code = "callback_failed"

    def __init__(self, message: str, *, retry_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class CallbackRefused(SluiceError):
    """A callback must not be made, or its receiver does not want it. Trying again does not help."""

    code = "callback_refused"


class TrainingError(SluiceError):
    """A classifier could not be trained or exported from what was given."""

    code = "training"
