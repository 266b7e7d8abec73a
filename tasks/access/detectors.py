"""What a secret looks like: by the names that stand before it, and by its own shape.

A detector is only tried where the text holds one of its ``anchors``, and its pattern is compiled when that first
happens: a process that meets nothing suspicious compiles nothing. What precedes a match is bounded, and nothing that
repeats can match in two ways: the time grows with the length of the text and not faster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Final

MARK: Final = r"\[redacted(?::[a-z0-9_]{1,40}/[0-9a-f]{20})?\]"
"""What stands where a secret stood. It is left alone when it is met again."""


class Detector:
    """Finds one kind of secret. The group ``secret`` of ``pattern`` is what goes.

    ``anchors`` are literals of which the text must hold one. Where ``sought`` is given, it is searched for in the text
    in lower case, and ``pattern`` is matched where it was found, which is many times faster than ignoring the case.
    ``guessable``: so few values are possible that a commitment would give the value away with the key.
    ``proves`` looks at the secret once more; what it refuses stays.
    """

    def __init__(
        self,
        kind: str,
        pattern: str,
        *,
        anchors: Iterable[str] = ("",),
        sought: str = "",
        guessable: bool = False,
        proves: Callable[[str], bool] = bool,
    ) -> None:
        self.kind = kind
        self.anchors = tuple(anchors)
        self.guessable = guessable
        self.proves = proves
        self._pattern = pattern
        self._sought = sought

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Return the compiled pattern."""
        return re.compile(self._pattern)

    @cached_property
    def sought(self) -> re.Pattern[str] | None:
        """Return what is searched for in the text in lower case, if anything."""
        return re.compile(self._sought) if self._sought else None


def is_card(number: str) -> bool:
    """Tell whether the digits of ``number`` pass the Luhn check."""
    digits = [int(char) for char in number if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def looks_random(value: str) -> bool:
    """Tell whether ``value`` looks generated: mixed case with digits, or a long run of hexadecimal digits."""
    if not any(char.isdigit() for char in value):
        return False
    if len(value) >= 32 and all(char in "0123456789abcdefABCDEF" for char in value):
        return True
    return any(char.islower() for char in value) and any(char.isupper() for char in value)


def looks_like_a_key(value: str) -> bool:
    """Tell whether ``value`` looks generated and is no path."""
    return looks_random(value) and (value.count("/") <= 1 or len(value) == 40)


def has_letters_and_digits(value: str) -> bool:
    """Tell whether ``value`` is more than a word and more than a number."""
    return any(char.isdigit() for char in value) and any(char.isalpha() for char in value)


def is_phone(number: str) -> bool:
    """Tell whether ``number`` has as many digits as a telephone number with its prefix."""
    return 8 <= sum(char.isdigit() for char in number) <= 15


# Digits ---------------------------------------------------------------------------------------------

# 14 to 19 digits that begin as cards do: clocks in milli-, micro- and nanoseconds do not look like that.
CARD: Final = Detector(
    "card",
    r"(?P<secret>[2-6](?<![\w-][2-6])(?:(?<=[3-6])\d{13,15}|(?<=2)[2-7]\d{14}|(?<=[46])\d{18}"
    r"|\d{3}([ ._/\u00a0-]{1,2})\d{4}\2\d{4}\2\d{2,4}(?:\2\d{3})?"
    r"|(?<=3)\d{3}([ ._/\u00a0-]{1,2})\d{6}\3\d{4,5}))(?![\w-])",
    guessable=True,
    proves=is_card,
)
_EMAIL: Final = Detector(
    "email",
    r"(?<![\w.+-])(?P<secret>[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24})(?!\w)",
    anchors=("@",),
    guessable=True,
)
_PHONE: Final = Detector(
    "phone",
    r"(?<![\w.+/-])(?P<secret>(?:\+|00)[1-9](?:[ ()./-]{0,2}\d){6,14}|\(0?\d{2,5}\)(?:[ ./-]{0,2}\d){5,10}"
    r"|0\d{2,4}[ /-](?:[ -]?\d){5,9}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-])",
    guessable=True,
    proves=is_phone,
)
CONFIGURED: Final = {"email": _EMAIL, "phone": _PHONE}
"""What is only looked for where ``auditing.detect`` says so."""

# After a name ---------------------------------------------------------------------------------------

_TO_VALUE: Final = r"\\{0,8}[\"']?\s{0,4}(?:[:=]|=>|%3[AaDd])\s{0,4}(?:b?\\{0,8}[\"'])?"
"""From the end of a name to the beginning of its value."""

NAMED: Final = (
    Detector(
        "authorization",
        r"(?<![A-Za-z0-9])\w+\s{1,4}(?P<secret>[A-Za-z0-9._~+/-]{12,}={0,2})",
        sought=r"bearer\s|basic\s|token\s|apikey\s",
        anchors=("bearer", "basic", "token", "apikey"),
        proves=looks_random,
    ),
    Detector(
        "password",
        r"--?\w{1,10}[ =][\"']?[^\s:\"']{1,64}:(?P<secret>[^\s\"']{6,})",
        sought=r"(?<![\w-])(?:-u|--user|--proxy-user)[ =]",
        anchors=("-u ", "-user"),
        proves=has_letters_and_digits,
    ),
    Detector(
        "cookie",
        r"\w+[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?P<secret>[\w.-]{1,64}=[^\r\n\"'\\]+)",
        sought="cookie",
        anchors=("cookie",),
    ),
    Detector(
        "password",
        r"(?:(?<![A-Za-z])|(?<=[a-z])(?=P))[A-Za-z]+" + _TO_VALUE + r"(?P<secret>[^\s\"'\\,;&<>\[]{6,})",
        sought="passw|passphrase|passcode|pwd",
        anchors=("passw", "pwd", "passphrase", "passcode"),
        proves=has_letters_and_digits,
    ),
    Detector(
        "key",
        r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[KTSC]))[A-Za-z]+" + _TO_VALUE + r"(?P<secret>[\w+/.~%-]{16,}={0,2})",
        sought=r"(?:keys?|tokens?|secrets?|credentials?|sig|signature|auth|pat)(?![a-z])",
        anchors=("key", "token", "secret", "credential", "sig", "auth", "pat"),
        proves=looks_like_a_key,
    ),
)
"""Tried where a text holds ``:``, ``=`` or a space."""

# By shape -------------------------------------------------------------------------------------------

_START: Final = r"(?<![A-Za-z0-9])"
"""Not in the middle of a word."""

MIXED: Final = (
    Detector(
        "private_key",
        r"(?s)(?P<secret>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z))",
        anchors=("PRIVATE KEY",),
    ),
    Detector(
        "aws_key",
        rf"{_START}(?P<secret>(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{{16}}(?:[\s:,/;|\"']{{1,5}}[A-Za-z0-9/+]{{40}})?)"
        r"(?![A-Za-z0-9])",
        anchors=("AKIA", "ASIA", "ABIA", "ACCA"),
    ),
    Detector(
        "jwt",
        r"(?<![A-Za-z0-9_-])(?P<secret>eyJ[A-Za-z0-9_-]{14,}(?:\.[A-Za-z0-9_-]*){0,4})",
        anchors=("eyJ",),
    ),
    Detector(
        "token",
        rf"{_START}(?P<secret>SG\.[\w-]{{16,}}\.[\w-]{{16,}}|ya29\.[\w-]{{20,}}|hv[sbr]\.[\w-]{{20,}}|AIza[\w-]{{30,}}"
        r"|(?:AC|SK)[0-9a-f]{32}|EAA[A-Za-z0-9]{40,}|1//0[\w-]{30,}|\d{8,10}:AA[\w-]{33}"
        r"|[\w~.-]{3}[78]Q~[\w~.-]{31,34})(?![A-Za-z0-9])",
        anchors=("AIza", "AC", "SK", "SG.", "ya29.", "hvs.", "hvb.", "hvr.", "EAA", "1//0", ":AA", "Q~"),
    ),
    Detector(
        "token",
        r"(?P<secret>[MNO](?<![\w-][MNO])[\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40})(?![\w-])",
        anchors=(".",),
        proves=looks_random,
    ),
)
"""Tried where a text holds a capital letter."""

PLAIN: Final = (
    Detector(
        "url_password",
        r"(?<=://)(?:[^\s/:@\"'<>]{0,256}:)?(?P<secret>[^\s/\"'<>\[]{3,256})(?=@)",
        anchors=("://",),
    ),
    Detector(
        "webhook",
        r"(?<=hooks\.slack\.com/)(?P<secret>(?:services|workflows|triggers)/[\w/-]{16,200})",
        anchors=("hooks.slack.com/",),
    ),
    Detector("webhook", r"(?<=/api/webhooks/)(?P<secret>\d{15,22}/[\w-]{40,200})", anchors=("/api/webhooks/",)),
    Detector("token", rf"{_START}(?P<secret>dapi[a-f0-9]{{32}})(?![A-Za-z0-9])", anchors=("dapi",)),
)

UNDERSCORED: Final = Detector(
    "token",
    rf"{_START}(?P<secret>(?:[spr]|gs)k_[\w-]{{16,}}|gh[pousr]_[A-Za-z0-9]{{20,}}|github_pat_\w{{20,}}"
    r"|npm_[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|do[opr]_v1_[a-f0-9]{32,}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{20,}"
    r"|whsec_[\w+/=-]{16,}|dckr_(?:pat|oat)_[\w-]{20,}|lin_api_[A-Za-z0-9]{20,}|gl(?:sa|c)_[\w=]{20,}"
    r"|secret_[A-Za-z0-9]{40,}|rubygems_[a-f0-9]{32,}|sntry[su]_[\w=+/-]{20,}|pscale_(?:tkn|pw)_[\w.-]{20,}"
    r"|figd_[\w-]{20,}|r8_[A-Za-z0-9]{20,}|ntn_[A-Za-z0-9]{30,}|sbp_[a-f0-9]{32,}|phc_\w{30,}|pnu_\w{20,})",
    anchors=(
        "k_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "b_pat_", "npm_", "hf_", "_v1_", "shp", "whsec_", "dckr_",
        "n_api_",
        "gls", "glc_", "secret_", "gems_", "sntry", "pscale_", "figd_", "r8_", "ntn_", "sbp_", "phc_", "pnu_",
    ),
)  # fmt: skip
HYPHENED: Final = Detector(
    "token",
    rf"{_START}(?P<secret>[spr]k-[\w-]{{16,}}|gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct|oas)-[\w.-]{{16,}}"
    r"|xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|GOCSPX-[\w-]{20,}|pypi-[\w-]{16,}"
    r"|sq0[a-z]{3}-[\w-]{20,}|key-[0-9a-f]{32}|AGE-SECRET-KEY-1[0-9A-Z]{50,}|PMAK-[a-f0-9]{20,}-[a-f0-9]{20,}"
    r"|tskey-[a-z]{1,16}-[\w-]{12,}|xkeysib-[a-f0-9]{32,}(?:-\w+)?|nvapi-[\w-]{20,}|xai-[\w-]{20,}|pplx-\w{20,}"
    r"|ATATT3[\w=-]{40,}|NRAK-[A-Z0-9]{20,})",
    anchors=(
        "sk-", "pk-", "rk-", "gl", "xox", "xapp-", "GOCSPX-", "pypi-", "sq0", "key-", "AGE-S", "PMAK-", "tskey-",
        "xkeysib-", "nvapi-", "xai-", "pplx-", "ATATT3", "NRAK-",
    ),
)  # fmt: skip
