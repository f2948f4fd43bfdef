"""Texts to arrays of tokens: WordPiece by Hugging Face `tokenizers`, pairs, truncation.

An input reads ``[CLS] first [SEP]`` or ``[CLS] first [SEP] second [SEP]``, padded at its end.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from imp_rg.config import require
from imp_rg.data.arrays import first_line
from imp_rg.types import AnyArray

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as WordPieces

MAX_SPARE_ROWS = 127
"""Rows by which an embedding may exceed its vocabulary: some are padded to multiples of 128."""

_SPECIAL = ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
MASK = "[MASK]"
"""The special token that only vocabularies for pre-training need."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokenised inputs, padded at their ends; rows are taken by index as from an array.

    Attributes:
      ids: Rows of the word embedding, int32 [example token].
      types: 0 for the first text and its special tokens, 1 for the second, [example token].
      length: Tokens of each input that are no padding, int32 [example].
    """

    ids: AnyArray
    types: AnyArray
    length: AnyArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of examples and tokens."""
        return self.ids.shape

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: Any) -> "Tokens":
        return Tokens(ids=self.ids[rows], types=self.types[rows], length=self.length[rows])

    def narrow(self, width: int) -> "Tokens":
        """The first `width` tokens of every input; none may be longer."""
        return Tokens(ids=self.ids[:, :width], types=self.types[:, :width], length=self.length)


class Encoded(NamedTuple):
    """Tokens of a list of texts, and what was lost on the way.

    Attributes:
      tokens: As wide as the longest input.
      num_truncated: Inputs that were longer than the limit.
      num_empty: Inputs with a text that has no token.
    """

    tokens: Tokens
    num_truncated: int
    num_empty: int


class Tokenizer:
    """WordPiece vocabulary, and the rules that split text into words.

    Attributes:
      path: File of the vocabulary.
      num_words: Size of the vocabulary; ids are smaller.
      special: Ids of the special tokens by name; `MASK` only if the vocabulary has it.
    """

    def __init__(self, path: Path, pieces: "WordPieces"):
        """Takes a tokenizer of the `tokenizers` library; truncation and padding are done here."""
        kind = type(pieces.model).__name__
        require(kind == "WordPiece", str(path), "must be a WordPiece tokenizer", kind)
        vocabulary = pieces.get_vocab(with_added_tokens=True)
        missing = [token for token in _SPECIAL if token not in vocabulary]
        require(not missing, str(path), "must hold the special tokens of BERT, missing", missing)
        pieces.no_truncation()
        pieces.no_padding()
        self.path = path
        self.num_words = 1 + max(vocabulary.values())
        self._pieces = pieces
        names = (*_SPECIAL, MASK)
        self.special = {name: vocabulary[name] for name in names if name in vocabulary}
        self._cls, self._sep, self._pad, _ = (vocabulary[token] for token in _SPECIAL)

    def check_embedding(self, num_rows: int) -> None:
        """Raises `ValueError` unless the vocabulary belongs to an embedding of `num_rows` rows."""
        spare = num_rows - self.num_words
        rule = f"{self.path} must fit the checkpoint, whose word embedding has {num_rows} rows"
        require(0 <= spare <= MAX_SPARE_ROWS, "vocabulary", rule, f"{self.num_words} words")

    def split(self, texts: Sequence[str]) -> "list[Encoding]":
        """Word pieces of each text by itself: ``ids`` and ``offsets`` in characters."""
        return self._pieces.encode_batch(list(texts), add_special_tokens=False)

    def encode(
        self, first: Sequence[str], second: Sequence[str] | None = None, *, max_length: int
    ) -> Encoded:
        """Tokenises texts or pairs of texts, and cuts those that are too long.

        Of a pair, the longer text loses its last token until the pair fits; of equally long ones
        the second does.

        Args:
          first: Texts.
          second: Their partners.
          max_length: Tokens of the longest input, special tokens included.

        Raises:
          ValueError: If there is no text, or no room for one beside the special tokens.

        References:
          Truncation as in Devlin et al.'s ``run_classifier.py`` and GLUE since.
        """
        require(len(first) > 0, "texts", "must not be empty", len(first))
        num_texts = 1 if second is None else 2
        rule = f"must be at least {2 * num_texts + 1}, special tokens included"
        require(max_length > 2 * num_texts, "max_length", rule, max_length)
        columns = [first] if second is None else [first, second]
        pieces = [[piece.ids for piece in self.split(texts)] for texts in columns]
        room = max_length - 1 - num_texts
        parts = [truncate(ids, room) for ids in zip(*pieces, strict=True)]
        return Encoded(
            tokens=self.assemble(parts),
            num_truncated=sum(sum(map(len, ids)) > room for ids in zip(*pieces, strict=True)),
            num_empty=sum(not all(ids) for ids in parts),
        )

    def assemble(self, parts: Sequence[Sequence[Sequence[int]]]) -> Tokens:
        """Joins the texts of each input with special tokens, and pads to the longest."""
        length = np.array([1 + sum(len(text) + 1 for text in texts) for texts in parts], np.int32)
        ids = np.full((len(parts), length.max()), self._pad, np.int32)
        types = np.zeros(ids.shape, np.uint8)
        for row, texts in enumerate(parts):
            joined = [self._cls]
            for text in texts:
                joined += [*text, self._sep]
            ids[row, : len(joined)] = joined
            types[row, len(texts[0]) + 2 : len(joined)] = 1
        return Tokens(ids=ids, types=types, length=length)


def truncate(texts: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """Cuts one text, or two, to `room` tokens in all; see `Tokenizer.encode`. House definition."""
    if len(texts) == 1:
        return [texts[0][:room]]
    first, second = map(len, texts)
    if first + second > room:
        # Token by token off the longer one ends with halves, or with the shorter one whole.
        shorter = min(first, second)
        longer = room - shorter
        if longer <= shorter:
            first, second = room - room // 2, room // 2
        else:
            first, second = (longer, second) if first > second else (first, longer)
    return [texts[0][:first], texts[1][:second]]


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Reads a tokenizer from ``tokenizer.json`` or ``vocab.txt``.

    Args:
      path: The file, or the folder of a checkpoint, where ``tokenizer.json`` comes first. Whether
        the words of a ``vocab.txt`` are lower-cased is said by ``tokenizer_config.json`` beside
        it, or else by whether it has capitals.

    Raises:
      ValueError: If there is no such file, or it holds no WordPiece vocabulary of BERT.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 3.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = [path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()]
        rule = "must hold tokenizer.json or vocab.txt"
        require(bool(found), "vocabulary", rule, str(path))
        path = found[0]
    require(path.is_file(), "vocabulary", "must be a file", str(path))
    try:
        pieces = _read_json(path) if path.suffix == ".json" else _read_words(path)
    except ImportError as error:
        rule = "needs the tokenizers library: pip install 'imp-rg[text]'"
        raise ValueError(f"vocabulary: {rule}, got {str(path)!r}") from error
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"vocabulary: cannot read {str(path)!r}: {first_line(error)}") from error
    return Tokenizer(path, pieces)


def _read_json(path: Path) -> "WordPieces":
    from tokenizers import Tokenizer as WordPieces

    return WordPieces.from_file(str(path))


def _read_words(path: Path) -> "WordPieces":
    from tokenizers import Tokenizer as WordPieces
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    words = path.read_text(encoding="utf-8").split("\n")
    words = words[:-1] if words[-1] == "" else words
    twice = [word for word, num in Counter(words).items() if num > 1]
    require(not twice, "words", "must stand on one line each", ", ".join(twice[:3]))
    # The stubs of the library know neither these arguments nor that the parts can be set.
    vocabulary: Any = {word: i for i, word in enumerate(words)}
    pieces = WordPieces(WordPiece(vocabulary, unk_token="[UNK]"))  # pyright: ignore
    pieces.normalizer = BertNormalizer(lowercase=_is_lower_case(path, words))  # pyright: ignore
    pieces.pre_tokenizer = BertPreTokenizer()  # pyright: ignore
    return pieces


def _is_lower_case(path: Path, words: Sequence[str]) -> bool:
    config = path.with_name("tokenizer_config.json")
    if config.is_file():
        found = json.loads(config.read_text(encoding="utf-8")).get("do_lower_case")
        if isinstance(found, bool):
            return found
    return all(word == word.lower() for word in words if not word.startswith("["))
