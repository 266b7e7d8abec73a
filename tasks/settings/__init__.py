"""The shape of the settings: one frozen object. :mod:`tasks.settings_load` reads it from a file and the environment."""

from tasks.settings.agents import AgentSettings, MemberSettings, PlanSettings, TeamSettings
from tasks.settings.base import EMBEDDED, Section
from tasks.settings.callbacks import CallbackSettings
from tasks.settings.doors import BucketSource, EventSettings, HttpSettings, JwtSettings, QueueSource
from tasks.settings.models import BreakerSettings, ModelCacheSettings, ModelSettings
from tasks.settings.queues import LeaseSettings, PoolSettings, QueueSettings, ScalingSettings, ShardSettings
from tasks.settings.routing import IntentSettings, RoutingSettings
from tasks.settings.sessions import SessionSettings
from tasks.settings.tools import (
    ApiToolSettings,
    AttachmentSettings,
    McpServerSettings,
    SqlToolSettings,
    ToolSettings,
)
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
    "AttachmentSettings",
    "AuditSettings",
    "BreakerSettings",
    "BucketSource",
    "CallbackSettings",
    "EventSettings",
    "GrantSettings",
    "HttpSettings",
    "IntentSettings",
    "JwtSettings",
    "LeaseSettings",
    "McpServerSettings",
    "MemberSettings",
    "ModelCacheSettings",
    "ModelSettings",
    "PlanSettings",
    "PolicySettings",
    "PoolSettings",
    "Price",
    "QueueSettings",
    "QueueSource",
    "QuotaSettings",
    "RoutingSettings",
    "ScalingSettings",
    "Section",
    "SessionSettings",
    "Settings",
    "ShardSettings",
    "SigningSettings",
    "SqlToolSettings",
    "TeamSettings",
    "TenantQuota",
    "ToolSettings",
]
