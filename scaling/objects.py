"""ScaledObjects as the local autoscaler obeys them: the rules in each, and what its formula counts.

KEDA asks every trigger by itself; here one look at a pool's depth answers them all. So only what the renderer writes is
understood: triggers on this pool's own queues, added up. Anything else is refused, by field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from scaling.kube.pools import Manifest, PoolPlan, plans
from scaling.kube.triggers import scaled_object
from scaling.rules import DOWN, UP, Behaviour, Change, Direction, Fallback, Rules
from tasks import keys
from tasks.contracts.base import told
from tasks.errors import InvalidInput
from tasks.settings import Settings
from tasks.stores.broker import Depth

_KIND: Final = "ScaledObject"
_RUNNING: Final = "what runs"


@dataclass(frozen=True)
class Watch:
    """What is watched of one pool. With ``in_flight`` what runs counts like what waits.

    ``termination_seconds`` is how long a worker that was told to stop has, until it is killed.
    """

    rules: Rules
    in_flight: bool
    termination_seconds: float

    def metric(self, depth: Depth) -> int:
        """Return what the formula makes of a pool's load."""
        return depth.total if self.in_flight else depth.waiting


class _Policy(msgspec.Struct, frozen=True, rename="camel"):
    type: Literal["Pods", "Percent"]
    value: int
    period_seconds: float


class _Direction(msgspec.Struct, frozen=True, rename="camel"):
    stabilization_window_seconds: float | None = None
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: list[_Policy] | None = None

    def over(self, default: Direction) -> Direction:
        """Return this, and Kubernetes' ``default`` where it says nothing."""
        window, policies = self.stabilization_window_seconds, self.policies
        return Direction(
            default.window if window is None else window,
            default.changes
            if policies is None
            else tuple(Change(one.type, one.value, one.period_seconds) for one in policies),
            self.select_policy,
        )


class _Behaviour(msgspec.Struct, frozen=True, rename="camel"):
    scale_up: _Direction = _Direction()
    scale_down: _Direction = _Direction()


class _Autoscaler(msgspec.Struct, frozen=True):
    behavior: _Behaviour = _Behaviour()


class _Modifiers(msgspec.Struct, frozen=True, rename="camel"):
    formula: str
    target: str
    activation_target: str = "0"
    metric_type: Literal["AverageValue"] = "AverageValue"


class _Advanced(msgspec.Struct, frozen=True, rename="camel"):
    scaling_modifiers: _Modifiers
    horizontal_pod_autoscaler_config: _Autoscaler = _Autoscaler()


class _Fallback(msgspec.Struct, frozen=True, rename="camel"):
    failure_threshold: int
    replicas: int
    behavior: Behaviour = "static"


class _Trigger(msgspec.Struct, frozen=True):
    type: Literal["redis", "aws-sqs-queue", "rabbitmq"]
    metadata: dict[str, str]
    name: str = ""


class _Target(msgspec.Struct, frozen=True):
    name: str


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    scale_target_ref: _Target
    advanced: _Advanced
    triggers: list[_Trigger]
    min_replica_count: int = 0
    max_replica_count: int = 100
    polling_interval: float = 30
    cooldown_period: float = 300
    fallback: _Fallback | None = None
    idle_replica_count: Literal[0] = 0


class _Object(msgspec.Struct, frozen=True):
    spec: _Spec


def rendered(settings: Settings) -> dict[str, Watch]:
    """Return what is watched of each pool, by the manifests that ``settings`` render to.

    KEDA takes whole seconds; here the intervals are as the settings have them.
    """
    objects = [scaled_object(plan, _broker(settings.broker_url), {}, settings.region) for plan in plans(settings)]
    scaling = settings.scaling
    return {
        pool: replace(
            watch,
            rules=replace(
                watch.rules,
                polling=scaling.polling_seconds,
                sync=scaling.polling_seconds,
                cooldown=scaling.cooldown_seconds,
            ),
        )
        for pool, watch in watches(objects, settings).items()
    }


def _broker(url: str | None) -> Literal["redis", "sqs", "rabbitmq"]:
    if url is None:
        return "redis"
    return "rabbitmq" if url.startswith("amqp") else "sqs"


def read(folder: Path, settings: Settings) -> dict[str, Watch]:
    """Return what is watched of each pool, by the ScaledObjects in the YAML files under ``folder``.

    Patches of overlays are not applied.

    Raises:
        InvalidInput: a pool has none, or one is not understood; the message names object and field.
    """
    import yaml

    objects: list[Manifest] = []
    for file in sorted(folder.rglob("*.yaml")):
        try:
            documents = list(yaml.safe_load_all(file.read_text("utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{file}: is not YAML: {error}") from error
        objects += [one for one in documents if isinstance(one, dict) and one.get("kind") == _KIND]
    if not objects:
        raise InvalidInput(f"{folder}: no {_KIND} in any .yaml file; `sluice scale render --out {folder}` writes them")
    return watches(objects, settings)


def watches(objects: Iterable[Manifest], settings: Settings) -> dict[str, Watch]:
    """Return what is watched of each pool, by ``objects``. The autoscaler looks as often as KEDA.

    Raises:
        InvalidInput: a pool has none, or one is not understood; the message names object and field.
    """
    known = {plan.name: plan for plan in plans(settings)}
    found: dict[str, Watch] = {}
    for one in objects:
        spec = _spec(one)
        plan = known.get(spec.scale_target_ref.name)
        if plan is None:
            raise InvalidInput(
                f"{_KIND} {_name(one)}: spec.scaleTargetRef.name: {spec.scale_target_ref.name!r} is no pool of the "
                f"settings; there are {', '.join(known)}"
            )
        if plan.pool in found:
            raise InvalidInput(f"{_KIND} {_name(one)}: the pool {plan.name} has two")
        try:
            found[plan.pool] = Watch(_rules(spec), _counts_running(spec, plan), float(plan.termination_seconds))
        except InvalidInput as error:
            raise InvalidInput(f"{_KIND} {_name(one)}: {error}") from error
    if missing := [plan.name for plan in known.values() if plan.pool not in found]:
        raise InvalidInput(f"no {_KIND} for {', '.join(missing)}; `sluice scale render` writes them")
    return found


def _name(one: Mapping[str, Any]) -> str:
    metadata = one.get("metadata")
    return str(metadata.get("name", "?")) if isinstance(metadata, dict) else "?"


def _spec(one: Manifest) -> _Spec:
    try:
        return msgspec.convert(one, _Object).spec
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{_KIND} {_name(one)}: {told(error)}") from error


def _rules(spec: _Spec) -> Rules:
    modifiers, behaviour = spec.advanced.scaling_modifiers, spec.advanced.horizontal_pod_autoscaler_config.behavior
    target = _number("target", modifiers.target)
    if target <= 0:
        raise InvalidInput("spec.advanced.scalingModifiers.target: must be above 0")
    fallback = spec.fallback
    return Rules(
        maximum=spec.max_replica_count,
        target=target,
        minimum=spec.min_replica_count,
        activation=_number("activationTarget", modifiers.activation_target),
        polling=spec.polling_interval,
        cooldown=spec.cooldown_period,
        sync=spec.polling_interval,
        up=behaviour.scale_up.over(UP),
        down=behaviour.scale_down.over(DOWN),
        fallback=Fallback(fallback.failure_threshold, fallback.replicas, fallback.behavior) if fallback else None,
    )


def _number(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"spec.advanced.scalingModifiers.{field}: {text!r} is no number") from None


def _counts_running(spec: _Spec, plan: PoolPlan) -> bool:
    """Tell whether the formula counts what runs as well as what waits in both queues.

    Raises:
        InvalidInput: it counts something else.
    """
    triggers = {trigger.name: trigger for trigger in spec.triggers}
    names = [name.strip() for name in spec.advanced.scaling_modifiers.formula.split("+")]
    where = "spec.advanced.scalingModifiers.formula"
    if unknown := [name for name in names if name not in triggers]:
        raise InvalidInput(f"{where}: only a sum of named triggers is understood here, not {unknown[0]!r}")
    counted = [part for name in names for part in _counted(triggers[name], plan.pool)]
    high, normal = keys.queues(plan.pool)
    running = counted.count(_RUNNING)
    # On Redis one trigger counts what runs in the pool, elsewhere each queue's trigger counts its own.
    whole = 1 if any(trigger.type == "redis" for trigger in spec.triggers) else 2
    if sorted(part for part in counted if part != _RUNNING) != sorted((high, normal)) or running not in {0, whole}:
        raise InvalidInput(f"{where}: must count {high}, {normal} and {_RUNNING}; it counts {', '.join(counted)}")
    return running > 0


def _counted(trigger: _Trigger, pool: str) -> list[str]:
    """Return the queues of ``pool`` that a trigger counts, and :data:`_RUNNING` where it counts what runs."""
    facts = trigger.metadata
    if trigger.type == "redis":
        lists = {keys.waiting(queue): queue for queue in keys.queues(pool)} | {keys.unacked(pool): _RUNNING}
        if named := lists.get(facts.get("listName", "")):
            return [named]
    elif trigger.type == "aws-sqs-queue":
        for queue in keys.queues(pool):
            if _in_sqs(facts.get("queueURL", "")).endswith(keys.sqs_queue("", queue)):
                return [queue, *([_RUNNING] if facts.get("scaleOnInFlight", "true") == "true" else [])]
    elif facts.get("queueName") in keys.queues(pool):
        return [facts["queueName"], *([_RUNNING] if facts.get("excludeUnacknowledged", "false") == "false" else [])]
    raise InvalidInput(f"trigger {trigger.name!r}: looks at no queue of the pool {pool}")


def _in_sqs(url: str) -> str:
    """Return the queue's name in ``url``, which may be a placeholder."""
    return keys.sqs_queue("", url.rpartition("/")[2])
