"""Text to token ids, the same way in training and in service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from tasks.contracts.base import sha256
from tasks.errors import IntegrityError, InvalidInput, NotReady

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = tuple[NDArray[np.int64], NDArray[np.int64]]

_CHARACTERS_PER_TOKEN: Final = 32
"""Characters beyond so many for each token kept are cut before tokenising: that bounds the work."""


class Encoder:
    """A WordPiece tokeniser with a length limit.

    A text that is too long keeps its first three quarters of ``max_length`` and fills the rest with its end:
    people put what they want in front of what they paste, or behind it. Safe to share between threads.
    """

    def __init__(self, tokenizer: bytes, max_length: int) -> None:
        """Read the bytes of a ``tokenizer.json``; ``max_length`` is in tokens, special ones included.

        Raises:
            NotReady: the ``tokenizers`` package is not installed.
            IntegrityError: the bytes are not a tokeniser.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise NotReady("the classifier needs the tokenizers package: pip install 'sluice[cpu]'") from error
        try:
            self._tokenizer: Any = Tokenizer.from_buffer(tokenizer)
        except Exception as error:  # the binding raises bare Exception
            raise IntegrityError(f"tokenizer.json is not a tokeniser: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._pad: int = self._tokenizer.token_to_id("[PAD]") or 0
        self.max_length = max_length

    def ids(self, text: str) -> list[int]:
        """Return the token ids of ``text``, special tokens included, at most ``max_length`` of them.

        Raises:
            InvalidInput: ``text`` is not a string of valid Unicode.
        """
        try:
            ids: list[int] = self._tokenizer.encode(self._clip(text)).ids
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidInput("text: must be a string of valid Unicode") from error
        if len(ids) <= self.max_length:
            return ids
        tail = self.max_length // 4
        return ids[: self.max_length - tail] + ids[-tail:]

    def inputs(self, rows: Sequence[Sequence[int]]) -> Inputs:
        """Return ``input_ids`` and ``attention_mask``, int64 ``[len(rows), longest]``, padded right."""
        import numpy as np

        width = max(map(len, rows))
        ids = np.full((len(rows), width), self._pad, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return ids, mask

    def _clip(self, text: str) -> str:
        limit = _CHARACTERS_PER_TOKEN * self.max_length
        if not isinstance(text, str) or len(text) <= limit:
            return text
        tail = limit // 4
        return f"{text[: limit - tail]} {text[-tail:]}"


class Encoders:
    """Encoders in use, by what they are made of: versions of one model mostly share theirs.

    Making one holds the interpreter, and with it every event loop of the process, for about 20 ms.
    """

    def __init__(self) -> None:
        self._made: WeakValueDictionary[tuple[str, int], Encoder] = WeakValueDictionary()

    def get(self, tokenizer: bytes, max_length: int) -> Encoder:
        """Return the encoder for these bytes, see :class:`Encoder`; it is shared while somebody uses it."""
        key = sha256(tokenizer), max_length
        encoder = self._made.get(key)
        if encoder is None:
            encoder = self._made[key] = Encoder(tokenizer, max_length)
        return encoder
