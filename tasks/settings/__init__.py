"""The shape of the settings: one frozen object. :mod:`tasks.settings_load` reads it from a file and the environment."""

from tasks.settings.agents import AgentSettings, ApiToolSettings, ModelSettings, SqlToolSettings, ToolSettings
from tasks.settings.base import EMBEDDED, Section
from tasks.settings.doors import BucketSource, EventSettings, HttpSettings, JwtSettings, QueueSource
from tasks.settings.queues import LeaseSettings, PoolSettings, QueueSettings, ScalingSettings
from tasks.settings.routing import IntentSettings, RoutingSettings
from tasks.settings.trust import (
    AlertRule,
    AlertTargets,
    AlertType,
    AuditSettings,
    GrantSettings,
    PolicySettings,
    Price,
    QuotaSettings,
    SigningSettings,
    TenantQuota,
)
from tasks.settings.whole import Settings

__all__ = [
    "EMBEDDED",
    "AgentSettings",
    "AlertRule",
    "AlertTargets",
    "AlertType",
    "ApiToolSettings",
    "AuditSettings",
    "BucketSource",
    "EventSettings",
    "GrantSettings",
    "HttpSettings",
    "IntentSettings",
    "JwtSettings",
    "LeaseSettings",
    "ModelSettings",
    "PolicySettings",
    "PoolSettings",
    "Price",
    "QueueSettings",
    "QueueSource",
    "QuotaSettings",
    "RoutingSettings",
    "ScalingSettings",
    "Section",
    "Settings",
    "SigningSettings",
    "SqlToolSettings",
    "TenantQuota",
    "ToolSettings",
]
