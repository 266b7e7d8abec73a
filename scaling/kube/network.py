"""NetworkPolicies: nothing may talk to anything but for the edges that the architecture has.

Policies know addresses and ports, no names: an edge to a store is one to its port anywhere but where clouds keep
credentials. Ports are those of the settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from scaling.kube.pools import Manifest
from scaling.kube.workloads import COMPONENT, labels
from tasks.settings import Settings

_METADATA: Final = "169.254.0.0/16"
"""Where clouds keep credentials. On EKS pods get theirs from an agent on 169.254.170.23."""
_POD_IDENTITY: Final = "169.254.170.23/32"
_HERE: Final = ("127.0.0.1", "localhost", "::1")
_TLS_PORT: Final = 443
_PORTS: Final = {
    "redis": 6379,
    "rediss": 6379,
    "secretsmanager": 6379,  # what the secret holds is the address of Redis
    "amqp": 5672,
    "amqps": 5671,
    "mysql": 3306,
    "mariadb": 3306,
    "postgresql": 5432,
}
"""Of addresses that name no port, by scheme; the others are reached by TLS."""


def deny_all() -> Manifest:
    """Return the policy that lets nothing in or out of any pod."""
    return _policy("deny-all", {}, {"policyTypes": ["Ingress", "Egress"]})


def dns() -> Manifest:
    """Return the policy that lets every pod ask for names."""
    cluster = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return _policy("dns", {}, {"policyTypes": ["Egress"], "egress": [{"to": cluster, "ports": ports}]})


def egress(name: str, components: Sequence[str], ports: Iterable[int], *, identity: bool = False) -> Manifest:
    """Return the policy that lets ``components`` reach ``ports``; with ``identity`` also their cloud's agent."""
    out = {"ipBlock": {"cidr": "0.0.0.0/0", "except": [_METADATA]}}
    rules: list[Manifest] = [{"to": [out], "ports": [{"protocol": "TCP", "port": port} for port in sorted(set(ports))]}]
    if identity:
        rules.append({"to": [{"ipBlock": {"cidr": _POD_IDENTITY}}], "ports": [{"protocol": "TCP", "port": 80}]})
    wanted = {"matchExpressions": [{"key": COMPONENT, "operator": "In", "values": list(components)}]}
    return _policy(name, wanted, {"policyTypes": ["Egress"], "egress": rules})


def store_ports(settings: Settings) -> set[int]:
    """Return the ports of Redis, queues and the object store; by TLS also those of keys and secrets."""
    return {_TLS_PORT, *_ports(settings.redis_url, settings.broker_url, settings.s3_endpoint)}


def agent_ports(settings: Settings) -> set[int]:
    """Return the ports of what agents use beside the stores: models, MCP servers, a database server."""
    database = settings.tools.sql_parser.database or ""
    return {
        _TLS_PORT,
        *_ports(
            settings.embedded_model_url,
            *(model.base_url for model in settings.models.values()),
            *(server.url for server in settings.tools.mcp.values()),
            database if "://" in database else None,
        ),
    }


def _ports(*urls: str | None) -> Iterator[int]:
    """Yield the ports of ``urls``. No pod uses what is on this machine: servers of that kind have their usual port."""
    for url in filter(None, urls):
        parts = urlsplit(url)
        usual = _PORTS.get(parts.scheme.partition("+")[0], _TLS_PORT)
        try:
            port = parts.port
        except ValueError:  # it stands for a variable of the environment
            port = None
        yield usual if parts.hostname in _HERE else port or usual


def _policy(name: str, pods: Manifest, rest: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": labels(name)},
        "spec": {"podSelector": pods, **rest},
    }
