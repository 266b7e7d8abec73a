"""Whether a model's labels and the configured routes fit together."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.contracts.words import Intent
from tasks.log import get_logger
from tasks.settings import RoutingSettings

log = get_logger()


def unrouted(labels: Iterable[str], routing: RoutingSettings) -> tuple[list[str], list[str]]:
    """Return the labels that have no route, and the configured routes whose label the model does not know."""
    known = set(labels)
    lost = known - set(routing.intents) - {Intent.OUT_OF_SCOPE.value}
    idle = set(routing.intents) - known - set(RoutingSettings().intents)
    return sorted(lost), sorted(idle)


def warn_unrouted(version: str, labels: Iterable[str], routing: RoutingSettings) -> None:
    """Log a warning, once, where a label has no route or a route no label."""
    lost, idle = unrouted(labels, routing)
    if lost or idle:
        log.warning("model and routes do not match: labels without a route go to the fallback",
                    version=version, labels_without_route=lost, routes_without_label=idle,
                    fallback=routing.fallback)  # fmt: skip
