"""Reads the settings from ``pipeline.yaml`` and the environment, and says everything that is wrong with them.

Every key can be overridden by ``SLUICE_<KEY>``, nested keys by ``SLUICE_<KEY>__<KEY>``; lists and maps are JSON.
What only an error needs is imported when there is one: cold start counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from tasks.errors import SettingsError
from tasks.settings import Section, Settings
from tasks.settings.base import Contradiction, Place, Problem
from tasks.settings.tools import BUILT_IN_TOOLS, TOOL_ENTRY_POINTS

DEFAULT_FILE: Final = "pipeline.yaml"
ENVIRONMENT_FILE: Final = "env"
"""In the stack's folder: where its servers are, as ``NAME=value`` lines, while it runs."""
PREFIX: Final = "SLUICE_"

S = TypeVar("S", bound=Section)


def home() -> Path:
    """Return the folder of the embedded stack: ``$SLUICE_HOME``, else ``.sluice`` here."""
    return Path(os.environ.get("SLUICE_HOME") or ".sluice")


def adopt_embedded_stack() -> None:
    """Point this process at the embedded stack, unless ``SLUICE_REDIS_URL`` points it elsewhere already."""
    file = home() / ENVIRONMENT_FILE
    if os.environ.get("SLUICE_REDIS_URL") or not file.is_file():
        return
    for line in file.read_text("utf-8").splitlines():
        name, _, value = line.partition("=")
        if name:
            os.environ[name] = value


def load(path: Path | None = None) -> Settings:
    """Read the settings from ``path``, else ``$SLUICE_CONFIG``, else ``./pipeline.yaml`` where it exists.

    Where the embedded stack runs here and nothing else is configured, its servers are used.

    Raises:
        SettingsError: names every key that is wrong, with its line in the file or its variable.
    """
    adopt_embedded_stack()
    file = settings_file(path)
    written = _read_file(file) if file else {}
    overrides = _overrides(os.environ)
    values = written
    for place, value in overrides:
        values = _merged(values, _nested(place, value))
    try:
        settings = _convert(values, Settings)
        problems = list(_unknown_tools(settings))
    except msgspec.ValidationError as error:
        problems = _problems(Settings, values, error)
    if problems:
        from tasks.settings_report import report

        told = report(problems, file, [place for place, _ in overrides], prefix=PREFIX)
        raise SettingsError(told) from None
    return settings


def settings_file(path: Path | None = None) -> Path | None:
    """Return the file that :func:`load` reads, ``None`` where there is none."""
    named = path or (Path(os.environ["SLUICE_CONFIG"]) if os.environ.get("SLUICE_CONFIG") else None)
    return named or (Path(DEFAULT_FILE) if Path(DEFAULT_FILE).exists() else None)


class Source:
    """Where one process has its settings from. Make it before they are loaded, so that no change is missed."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seen = self._stamp()

    @property
    def file(self) -> Path | None:
        """Return the file that is read."""
        return settings_file(self._path)

    def changed(self) -> bool:
        """Tell whether the file is another one than when this was last asked. A file that is away is no change."""
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return False
        self._seen = stamp
        return True

    def load(self) -> Settings:
        """Read the settings; see :func:`load`."""
        return load(self._path)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            # Through links: Kubernetes swaps one when a ConfigMap changes.
            stat = (self.file or Path(DEFAULT_FILE)).stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size


def parse(shape: type[S], values: Mapping[str, Any]) -> S:
    """Return ``values`` as ``shape``: the settings, or a part of them.

    Raises:
        SettingsError: names every key that is wrong.
    """
    try:
        return _convert(values, shape)
    except msgspec.ValidationError as error:
        raise SettingsError("; ".join(text for _, text in _problems(shape, values, error))) from None


# Reading ------------------------------------------------------------------------------------------


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not valid YAML: not UTF-8 at byte {error.start}") from None
    data = _read_json(path, text) if path.suffix == ".json" else _read_yaml(path, text)
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SettingsError(f"{path}: the top level must be a map of keys")
    return data


def _read_json(path: Path, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path}: not valid JSON: {error}") from None


def _read_yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {_where(error)}") from None


def _where(error: Any) -> str:
    """Return what is wrong and in which line, without the text itself: it may hold a secret."""
    import re

    what = re.sub(r""" ?(["']).{2,}\1""", "", getattr(error, "problem", None) or "not readable")
    mark = getattr(error, "problem_mark", None)
    return f"{what} (line {mark.line + 1}, column {mark.column + 1})" if mark else what


def _overrides(environ: Mapping[str, str]) -> list[tuple[Place, Any]]:
    """Return what the environment sets, a section before the keys in it. Names of no setting are somebody else's."""
    found = []
    for name, text in environ.items():
        place = tuple(name.lower().removeprefix(PREFIX.lower()).split("__"))
        if name.upper().startswith(PREFIX) and text and place[0] in Settings.__struct_fields__:
            found.append((place, _value(text)))
    return sorted(found, key=lambda override: override[0])


def _value(text: str) -> Any:
    if text.lstrip().startswith(("[", "{")):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text  # an error where a list or a map belongs, and else just text
    return text


def _nested(place: Place, value: Any) -> dict[str, Any]:
    for key in reversed(place):
        value = {key: value}
    return dict(value)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _convert(value: Any, shape: type[S]) -> S:
    return msgspec.convert(value, shape, strict=False, dec_hook=_other_types)


def _other_types(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str | Path):
        return Path(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


# What is wrong ------------------------------------------------------------------------------------


def _problems(shape: type[Section], values: Any, first: msgspec.ValidationError) -> list[Problem]:
    """Return every wrong key; where each is right by itself, what ``first`` says of the whole."""
    from tasks.settings_report import spelt

    if wrong := [(place, spelt(place, text)) for place, text in _wrong(shape, values, ())]:
        return wrong
    cause = first.__cause__
    return list(cause.problems) if isinstance(cause, Contradiction) else [((), str(cause or first))]


def _unknown_tools(settings: Settings) -> Iterator[Problem]:
    """Yield the tools that an agent type names and that nobody has registered."""
    if all(settings.tools.knows(name) for agent in settings.agents for name in agent.all_tools):
        return  # what is installed is only looked through where it matters: that takes milliseconds
    from importlib.metadata import entry_points

    known = {*BUILT_IN_TOOLS, *entry_points(group=TOOL_ENTRY_POINTS).names}
    for number, agent in enumerate(settings.agents):
        for name in agent.all_tools:
            if name not in known and not settings.tools.knows(name):
                place = ("agents", str(number), "tools")
                text = f"agents.{agent.type}.tools: there is no tool {name!r}{_near(name, dict.fromkeys(known))}"
                yield place, f"{text}; known tools: {', '.join(sorted(known))}"


def _wrong(shape: Any, value: Any, place: Place) -> Iterator[Problem]:
    """Yield what is wrong at ``place`` and below it: msgspec itself stops at the first."""
    if value is not None and NoneType in get_args(shape):
        shape = next(kind for kind in get_args(shape) if kind is not NoneType)
    kind, inner = get_origin(shape), get_args(shape)
    below = list(_wrong(inner[0], value, place)) if kind is Annotated and isinstance(value, list) else []
    if below:
        yield from below
    elif isinstance(value, dict) and isinstance(shape, type) and issubclass(shape, Section):
        yield from _wrong_in_section(shape, value, place)
    elif isinstance(value, dict) and kind is dict:
        for key, item in value.items():
            yield from _wrong(inner[0], key, (*place, str(key)))
            yield from _wrong(inner[1], item, (*place, str(key)))
    elif isinstance(value, list) and kind is tuple:
        for number, item in enumerate(value):
            yield from _wrong(inner[0], item, (*place, str(number)))
    else:
        try:
            _convert(value, shape)
        except msgspec.ValidationError as error:
            yield place, _said(shape, error)


def _wrong_in_section(shape: type[Section], values: dict[Any, Any], place: Place) -> Iterator[Problem]:
    fields = {field.name: field for field in msgspec.structs.fields(shape)}
    for key, value in values.items():
        if key in fields:
            yield from _wrong(fields[key].type, value, (*place, key))
        else:
            yield (*place, str(key)), f"there is no such key{_near(str(key), fields)}"
    for name, field in fields.items():
        if field.required and name not in values:
            yield (*place, name), "is missing"


def _near(key: str, names: Mapping[str, Any]) -> str:
    import difflib

    near = difflib.get_close_matches(key, names, n=1)
    return f", did you mean {near[0]}?" if near else ""


def _said(shape: Any, error: msgspec.ValidationError) -> str:
    """Return msgspec's words without the value, which they quote where a word is not one of a few."""
    text = str(error).partition(" - at ")[0]
    if not text.startswith("Invalid enum value"):
        return text.replace("`", "").replace("Expected", "expected").replace("array", "list").replace("object", "map")
    words = get_args(shape) if get_origin(shape) is Literal else shape
    return f"expected one of {', '.join(words)}"
