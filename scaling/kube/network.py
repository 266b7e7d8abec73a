"""NetworkPolicies: nothing may talk to anything but for the edges that the architecture has."""

from __future__ import annotations

from collections.abc import Sequence

from scaling.kube.pools import Manifest
from scaling.kube.workloads import labels

_METADATA = "169.254.0.0/16"
"""Where clouds keep credentials. On EKS pods get theirs from an agent on 169.254.170.23."""
_POD_IDENTITY = "169.254.170.23/32"
_REDIS_PORT, _TLS_PORT = 6379, 443


def deny_all() -> Manifest:
    """Return the policy that lets nothing in or out of any pod."""
    return _policy("deny-all", {}, {"policyTypes": ["Ingress", "Egress"]})


def dns() -> Manifest:
    """Return the policy that lets every pod ask for names."""
    cluster = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return _policy("dns", {}, {"policyTypes": ["Egress"], "egress": [{"to": cluster, "ports": ports}]})


def stores(components: Sequence[str]) -> Manifest:
    """Return the policy that lets ``components`` reach Redis, and by TLS the object store, queues and models."""
    out = {"ipBlock": {"cidr": "0.0.0.0/0", "except": [_METADATA]}}
    rules = [
        {"to": [out], "ports": [{"protocol": "TCP", "port": port} for port in (_REDIS_PORT, _TLS_PORT)]},
        {"to": [{"ipBlock": {"cidr": _POD_IDENTITY}}], "ports": [{"protocol": "TCP", "port": 80}]},
    ]
    wanted = {"matchExpressions": [{"key": _COMPONENT, "operator": "In", "values": list(components)}]}
    return _policy("stores", wanted, {"policyTypes": ["Egress"], "egress": rules})


_COMPONENT = "app.kubernetes.io/component"


def _policy(name: str, pods: Manifest, rest: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": labels(name)},
        "spec": {"podSelector": pods, **rest},
    }
