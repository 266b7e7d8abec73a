"""The one redactor. It is applied where a record is born, before anything else sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final

from tasks.access.commitments import Commitments, is_guessable, load
from tasks.access.detectors import CARD, CONFIGURED, HYPHENED, MARK, MIXED, NAMED, PLAIN, UNDERSCORED, Detector, is_card
from tasks.log import bound_fields
from tasks.settings import AuditSettings

REDACTED: Final = "[redacted]"

_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{64}").fullmatch
"""What most strings are here, UUIDs and SHA-256 digests, hold nothing."""
_LEAST_CARD: Final = 10**13
_MOST_CARD: Final = 10**19
_MARK: Final = re.compile(MARK)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SCHEME: Final = re.compile(r"(?i:bearer|basic|token|apikey)\s+")
_ALL: Final = (*MIXED, *PLAIN)
_SHORTEST: Final = 14
"""Characters that a secret has at least which no name stands before."""
_KEPT_LENGTH: Final = 32
_KEPT: Final = 2048
"""Names of queues, workers and models come again and again: so many, so short ones, are known to be clean."""

# From a name to its value, and the value: in quotes, in escaped quotes, in brackets, to the end of the line, or bare.
_SUFFIX: Final = r"s?(?:[_-][A-Za-z0-9]{1,32}|[A-Z][a-z0-9]{0,32}){0,4}(?![A-Za-z0-9])"
_QUOTE: Final = r"(?:&quot;|&apos;|&#3[49];|%(?:25){0,3}2[27]|\\{0,8}[\"'])?"
_EQUALS: Final = r"(?:=>|->|→|:=|[:=]|%(?:25){0,3}3[AaDd]|\\{1,8}u003[adAD]|&#(?:58|61|[xX]3[aAdD]);)"
_BETWEEN: Final = rf"{_QUOTE}\s{{0,8}}{_EQUALS}\s{{0,8}}(?:&quot;|&apos;|&#3[49];)?"
"""A colon or an equals sign, as it is and as URLs, HTML and JSON spell it."""
_VALUE: Final = (
    r"(?P<quote>\\{1,8}[\"'])(?P<escaped>(?s:.*?))(?:(?<!\\)(?P=quote)|\Z)"
    rf"|(?P<mark>{MARK})|\"(?P<double>(?:[^\"\\]|\\.)*)(?:\"|\\?\Z)|b?'(?P<single>(?:[^'\\]|\\.)*)(?:'|\\?\Z)"
    r"|(?P<list>\[[^\]]*\]?|\{[^}]*\}?)"
    r"|(?P<block>[|>][-+0-9]{0,3}[ \t]*\r?\n(?:[ \t]+[^\n]*(?:\n|\Z))+)"
    r"|(?P<line>(?i:digest|negotiate|aws4-hmac-sha256|hawk)\s[^\r\n]*)"
    r"|(?P<bare>(?:(?i:bearer|basic|token|apikey)\s+)?[^\s,;&]+)"
)
# The same in other dress: an XML element, a sentence, a table, a pair in brackets, a flag of a command line.
_SPOKEN: Final = (
    r"[^<>\s]{0,64}>(?:<!\[CDATA\[)?(?P<element>[^<]+)(?=</)"
    r"|s?(?:\s+(?:is|was)\s+[\"']?|\s+[\"']|\t+|\s{0,4}\|\s{0,4}|;)"
    r"(?P<told>(?=[^\s\d]{0,80}\d)(?=[^\sA-Za-z]{0,80}[A-Za-z])[^\s\"'|]{6,})"
    rf"|{_SUFFIX}\\{{0,8}}[\"']\s{{0,4}},\s{{0,4}}b?\\{{0,8}}[\"'](?P<pair>[^\"'\\\r\n]+)(?=\\{{0,8}}[\"']\s{{0,4}}[)\]])"
    r"|\s+(?P<flag>[^\s-]\S*)"
)
_BEFORE_FLAG: Final = re.compile(r"(?:^|\s)--?[\w-]{0,32}\Z")
_BEFORE_PAIR: Final = re.compile(r"[(\[]\s{0,4}b?\\{0,8}[\"'][\w.-]{0,48}\Z")
_BEFORE_ELEMENT: Final = re.compile(r"<[^<>\s]{0,64}\Z")
_BEFORE: Final = 66


_SIGN: Final = re.compile(r"[:= >→\t|;,]|%(?:25)?3|\\u003").search
"""A text without any of these has no name with a value after it."""
_INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")


class Redactor:
    """Replaces the values of sensitive fields, and what looks like a secret, in any JSON value.

    ``fields`` are names, found as words in names at any depth and in text. ``detect`` adds what is no secret
    everywhere: ``email``, ``phone``. With ``commitments`` a mark carries the commitment to what it replaced, for the
    tenant that is bound where it is said (:func:`tasks.log.bound`).
    """

    def __init__(
        self, fields: Iterable[str], *, detect: Iterable[str] = (), commitments: Commitments | None = None
    ) -> None:
        self._fields = tuple(fields)
        self._commitments = commitments
        self._anchors = tuple({max(re.split(r"[ _-]", name.lower()), key=len) for name in self._fields})
        self._configured = tuple(CONFIGURED[name] for name in detect)
        self._shortest = 1 if self._configured else _SHORTEST
        self._field_of = lru_cache(4096)(self._find_field)
        self._clean: set[str] = set()

    @classmethod
    def of(cls, settings: AuditSettings) -> Redactor:
        """Return the redactor that ``settings`` describe, with the commitment key where there is one."""
        return cls(settings.sensitive_fields, detect=settings.detect, commitments=load(settings))

    def value(self, value: Any) -> Any:
        """Return ``value`` (any JSON value) with every secret replaced."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self._map(value)
        if isinstance(value, list | tuple):
            return self._list(value)
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "replace"))
        if isinstance(value, int) and _LEAST_CARD <= value < _MOST_CARD and is_card(digits := str(value)):
            return self.text(digits)
        return value

    def text(self, text: str) -> str:
        """Return ``text`` with everything that looks like a secret replaced."""
        if text in self._clean:
            return text
        if _ID(text):
            return text
        folded = text if text.isascii() else _folded(text)
        clean = self._searched(folded)
        if clean == folded:
            clean = text  # with its own letters
        if len(text) <= _KEPT_LENGTH and clean == text:
            if len(self._clean) >= _KEPT:
                self._clean.clear()
            self._clean.add(text)
        return clean

    def _searched(self, text: str) -> str:
        is_named = _SIGN(text) is not None
        if len(text) < self._shortest and not is_named:
            return text
        lower = _lower(text)
        if is_named:
            text = self._after_names(text, lower)
        if len(text) < self._shortest:
            return text
        if "_" in text:
            text = self._tried(UNDERSCORED, text)
        if "-" in text:
            text = self._tried(HYPHENED, text)
        for detector in PLAIN if text.islower() else _ALL:
            text = self._tried(detector, text)
        for detector in self._configured:
            text = self._tried(detector, text)
        return self._without(CARD, text)

    def _after_names(self, text: str, lower: str) -> str:
        if any(anchor in lower for anchor in self._anchors):
            text = _rewritten(text, self._named_values(text, lower))
            lower = _lower(text)
        for detector in NAMED if len(text) >= _SHORTEST else ():
            if any(anchor in lower for anchor in detector.anchors):
                text = self._without(detector, text, lower)
                lower = _lower(text)
        return text

    # By name ------------------------------------------------------------------------------------------

    def _list(self, values: Sequence[Any]) -> list[Any]:
        if len(values) == 2 and isinstance(values[0], str) and (field := self._field_of(values[0])):
            return [self.text(values[0]), self._hidden(values[1], field)]  # a header, as clients keep them
        clean = []
        field = ""
        for item in values:
            is_flag = isinstance(item, str) and item.startswith("-")
            clean.append(self._hidden(item, field) if field and not is_flag else self.value(item))
            field = self._field_of(item) if is_flag else ""  # of a command line: its value is the next one
        return clean

    def _map(self, values: dict[Any, Any]) -> dict[str, Any]:
        label = values.get("name", values.get("key")) if "value" in values else None
        labelled = self._field_of(label) if isinstance(label, str) else ""
        clean = {}
        for key, value in values.items():
            name = str(key)
            field = self._field_of(name) or (labelled if name == "value" else "")
            clean[self.text(name)] = self._hidden(value, field, name) if field else self.value(value)
        return clean

    def _hidden(self, value: Any, field: str, name: str = "") -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and name.lower().endswith("_tokens"):
            return value  # a count
        if isinstance(value, str):
            return value if _MARK.fullmatch(value) else self._mark(value, field)
        return REDACTED

    def _find_field(self, name: str) -> str:
        """Return the sensitive field that ``name`` speaks of; empty if it speaks of none."""
        name = name if name.isascii() else _folded(name)
        if not self._fields or not self._in_name.search(_CAMEL.sub("_", name)):
            return ""
        squeezed = re.sub(r"[ _.-]", "", name.lower())
        return next((field for field in self._fields if re.sub(r"[ _.-]", "", field.lower()) in squeezed), "field")

    @property
    def _names(self) -> str:
        parts = [re.escape(name.lower()).replace("_", "[ _.-]?") for name in self._fields]
        return "|".join(sorted(parts, key=len, reverse=True))

    @cached_property
    def _in_name(self) -> re.Pattern[str]:
        return re.compile(rf"(?:^|[^a-z]|_)(?:{self._names})s?(?:$|[^a-z])", re.IGNORECASE)

    @cached_property
    def _sought(self) -> re.Pattern[str]:
        return re.compile(self._names)

    @cached_property
    def _valued(self) -> re.Pattern[str]:
        start = r"(?:(?<![A-Za-z])|(?<=[a-z0-9])(?=[A-Z]))"
        name = rf"(?P<name>(?i:{self._names}))"
        return re.compile(rf"{start}{name}(?:(?P<after>{_SUFFIX}{_BETWEEN})(?:{_VALUE})|{_SPOKEN})")

    def _named_values(self, text: str, lower: str) -> Iterator[tuple[int, int, str]]:
        """Yield where a value of a sensitive field begins and ends, and what comes in its place."""
        end = 0
        for found in self._sought.finditer(lower):
            if found.start() < end:
                continue
            match = self._valued.match(text, found.start())
            if match is None or match["mark"] or not _is_said(text, match):
                continue
            group = next(group for group in _GROUPS if match[group] is not None)
            begin, end = (match.end("after"), match.end()) if group in _WHOLE else match.span(group)
            value = match[group]
            if group == "bare":
                value = _SCHEME.sub("", value, count=1)
                if value.rstrip(".!?)]}").isdigit() and len(value) < 8 and match["name"].lower() == "token":
                    continue  # a count
            yield begin, end, self._mark(value, self._field_of(match["name"]) or "field")

    # By shape -----------------------------------------------------------------------------------------

    def _tried(self, detector: Detector, text: str) -> str:
        return self._without(detector, text) if any(anchor in text for anchor in detector.anchors) else text

    def _without(self, detector: Detector, text: str, lower: str = "") -> str:
        """Return ``text`` without what ``detector`` finds."""
        return _rewritten(text, self._found(detector, text, lower))

    def _found(self, detector: Detector, text: str, lower: str) -> Iterator[tuple[int, int, str]]:
        for match in _matches(detector, text, lower):
            secret = match["secret"]
            if detector.proves(secret) and not _MARK.match(secret):
                yield *match.span("secret"), REDACTED if detector.guessable else self._mark(secret, detector.kind)

    def _mark(self, value: str, field: str) -> str:
        if self._commitments is None or is_guessable(value):
            return REDACTED
        tenant = str(bound_fields().get("tenant", ""))
        return f"[redacted:{field}/{self._commitments.of(value, tenant=tenant, field=field)}]"


_GROUPS: Final = ("double", "single", "escaped", "bare", "line", "list", "block", "told", "pair", "element", "flag")
_WHOLE: Final = frozenset({"double", "single", "escaped", "bare", "line", "list"})
"""What is replaced with its quotes."""


def _is_said(text: str, match: re.Match[str]) -> bool:
    """Tell whether what stands before the name agrees with what was found after it."""
    before = text[max(match.start() - _BEFORE, 0) : match.start()]
    said = match["flag"] or match["element"] or match["told"] or match["pair"]
    if said and _MARK.match(said):
        return False
    if match["flag"]:
        return _BEFORE_FLAG.search(before) is not None
    if match["pair"]:
        return _BEFORE_PAIR.search(before) is not None
    return match["element"] is None or _BEFORE_ELEMENT.search(before) is not None


def _matches(detector: Detector, text: str, lower: str) -> Iterator[re.Match[str]]:
    if detector.sought is None:
        yield from detector.pattern.finditer(text)
        return
    end = 0
    for found in detector.sought.finditer(lower):
        if found.start() >= end and (match := detector.pattern.match(text, found.start())):
            end = match.end()
            yield match


def _rewritten(text: str, changes: Iterator[tuple[int, int, str]]) -> str:
    done, parts = 0, list[str]()
    for begin, end, instead in changes:
        parts += (text[done:begin], instead)
        done = end
    return "".join([*parts, text[done:]]) if parts else text


def _folded(text: str) -> str:
    """Return ``text`` with letters, digits and signs in their plain form, and without what nobody sees."""
    import unicodedata

    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def _lower(text: str) -> str:
    """Return ``text`` in lower case, each character where it was."""
    lower = text.lower()
    # A few letters become two: then only those of ASCII change.
    return (
        lower
        if len(lower) == len(text)
        else text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
    )
