"""Tokens of texts and pairs, what is cut, and vocabularies that do not fit."""

import json
import shutil

import jax
import numpy as np
import pytest
from text_inputs import ID, WORDS, make_tokenizer, needs_real_encoder, words_of

from imp_rg.data.text.tokenize import load_tokenizer, truncate
from imp_rg.foreign.bert_variables import find_checkpoint


def cut_token_by_token(first, second, room):
    """The rule itself: the longer one loses its last token, of equal ones the second."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return [first, second]


@pytest.mark.parametrize("room", range(2, 13))
def test_pairs_are_cut_as_token_by_token(room):
    for num_first in range(9):
        for num_second in range(9):
            pair = list(range(num_first)), list(range(num_second))
            assert truncate(pair, room) == cut_token_by_token(*pair, room)


def test_pairs(tmp_path):
    encoded = make_tokenizer(tmp_path).encode(["A bx.", "q ,"], ["c", "d e f g"], max_length=8)
    tokens = encoded.tokens
    assert [words_of(ids) for ids in tokens.ids] == [
        "[CLS] a b ##x . [SEP] c [SEP]",
        "[CLS] [UNK] , [SEP] d e f [SEP]",
    ]
    np.testing.assert_array_equal(tokens.types, [[0] * 6 + [1] * 2, [0] * 4 + [1] * 4])
    np.testing.assert_array_equal(tokens.length, [8, 8])
    assert (encoded.num_truncated, encoded.num_empty) == (1, 0)


def test_single_texts_are_padded(tmp_path):
    encoded = make_tokenizer(tmp_path).encode(["a b c d", "", "a b c d e"], max_length=6)
    tokens = encoded.tokens
    assert [words_of(ids) for ids in tokens.ids] == [
        "[CLS] a b c d [SEP]",
        "[CLS] [SEP] [PAD] [PAD] [PAD] [PAD]",
        "[CLS] a b c d [SEP]",
    ]
    assert not tokens.types.any()
    np.testing.assert_array_equal(tokens.length, [6, 2, 6])
    assert (encoded.num_truncated, encoded.num_empty) == (1, 1)


def test_tokens_behave_as_an_array_of_examples(tmp_path):
    tokens = make_tokenizer(tmp_path).encode(list("abc"), list("bcd"), max_length=9).tokens
    assert len(tokens) == 3 and tokens.shape == (3, 5)
    some = jax.jit(lambda t, rows: t[rows])(tokens, np.array([2, 0]))
    assert [words_of(ids) for ids in np.asarray(some.ids)] == [
        "[CLS] c [SEP] d [SEP]",
        "[CLS] a [SEP] b [SEP]",
    ]
    assert tokens.narrow(4).shape == (3, 4)
    assert sum(x.size for x in jax.tree.leaves(tokens)) == 2 * 15 + 3


@pytest.mark.parametrize(
    ("words", "config", "is_lower"),
    [
        (WORDS, None, True),
        ([*WORDS, "A"], None, False),  # a vocabulary with capitals tells them apart
        ([*WORDS, "A"], {"do_lower_case": True}, True),
        (WORDS, {"do_lower_case": False}, False),
        (WORDS, {}, True),
    ],
)
def test_capitals(words, config, is_lower, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ids = load_tokenizer(tmp_path).encode(["A"], max_length=3).tokens.ids
    upper = words.index("A") if "A" in words else ID["[UNK]"]
    assert ids[0, 1] == (ID["a"] if is_lower else upper)


def test_vocabulary_and_embedding(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    num = len(WORDS)
    assert tokenizer.num_words == num
    for num_rows in (num, num + 127):
        tokenizer.check_embedding(num_rows)
    for num_rows in (num - 1, num + 128):
        message = f"vocab.txt must fit .* has {num_rows} rows, got '{num} words'"
        with pytest.raises(ValueError, match=message):
            tokenizer.check_embedding(num_rows)


def test_unfit_files(tmp_path):
    with pytest.raises(ValueError, match="vocabulary: must hold tokenizer.json or vocab.txt"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="vocabulary: must be a file"):
        load_tokenizer(tmp_path / "vocab.txt")
    path = tmp_path / "vocab.txt"
    for words, message in (
        (WORDS[3:], r"must hold the special tokens of BERT, missing, got \['\[CLS\]', '\[PAD\]'"),
        ([*WORDS, "a", "b"], "vocab.txt': words: must stand on one line each, got 'a, b'"),
        ([], "must hold the special tokens"),
    ):
        path.write_text("\n".join(words))
        with pytest.raises(ValueError, match=message):
            load_tokenizer(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="vocabulary: cannot read"):
        load_tokenizer(path)
    path = tmp_path / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="vocabulary: cannot read .*tokenizer.json"):
        load_tokenizer(tmp_path)
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(path))
    with pytest.raises(ValueError, match="must be a WordPiece tokenizer, got 'BPE'"):
        load_tokenizer(path)


def test_without_the_library(tmp_path, monkeypatch):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"needs the tokenizers library: pip install 'imp-rg\[te"):
        load_tokenizer(tmp_path)


def test_unfit_limits(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="max_length: must be at least 5, special tokens included"):
        tokenizer.encode(["a"], ["b"], max_length=4)
    with pytest.raises(ValueError, match="max_length: must be at least 3"):
        tokenizer.encode(["a"], max_length=2)
    with pytest.raises(ValueError, match="texts: must not be empty"):
        tokenizer.encode([], max_length=9)


@needs_real_encoder
def test_a_real_vocabulary_in_both_forms(tmp_path):
    """Against the pair encoding of the library itself, which knows the special tokens too."""
    from tokenizers import Tokenizer

    folder = find_checkpoint("minilm")
    shutil.copy(folder / "vocab.txt", tmp_path)
    first = ["The café's déjà-vu — 3.5% of 東京!", "unaffable"]
    second = ["“Quoted” text\twith\u00a0spaces", "Ω ≈ 7 electroencephalographically [MASK]"]
    pieces = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces.no_padding()
    pieces.no_truncation()
    expected = pieces.encode_batch(list(zip(first, second, strict=True)))
    for path in (folder, tmp_path):
        tokenizer = load_tokenizer(path)
        tokenizer.check_embedding(30_522)
        if path == tmp_path:  # a vocabulary alone does not say that [MASK] stands for itself
            second[1] = second[1].replace(" [MASK]", "")
            expected = pieces.encode_batch(list(zip(first, second, strict=True)))
        assert tokenizer.encode(["a " * 200], max_length=512).tokens.shape == (1, 202)
        tokens = tokenizer.encode(first, second, max_length=64).tokens
        for row, wanted in enumerate(expected):
            num = tokens.length[row]
            assert list(tokens.ids[row, :num]) == wanted.ids
            assert list(tokens.types[row, :num]) == wanted.type_ids
            assert not tokens.ids[row, num:].any()
