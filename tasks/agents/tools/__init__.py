"""What agents can do. A package that brings a tool needs these names and no others."""

from tasks.agents.tools.base import ToolContext
from tasks.agents.tools.function import tool
from tasks.errors import ToolError, ToolFailed, ToolUncertain

__all__ = ["ToolContext", "ToolError", "ToolFailed", "ToolUncertain", "tool"]
