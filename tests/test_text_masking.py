"""Masking: its rates, what it never hides, and where masked texts come from."""

import gzip
import json

import jax
import numpy as np
import pytest
from text_inputs import ID, TEXT, WORDS, make_tokenizer, needs_real_encoder, needs_real_tasks

from imp_rg.data.text import load_text, score
from imp_rg.data.text.masking import UNASKED, Masking, make_masking, mask_tokens
from imp_rg.data.text.rows import read_rows
from imp_rg.data.text.tasks import MLM, TASKS, find_task
from imp_rg.data.text.tokenize import Tokens, load_tokenizer
from imp_rg.foreign.bert_variables import find_checkpoint

NUM_WORDS, NUM_EXAMPLES, WIDTH = 1000, 400, 64
MASKING = Masking(mask=4, special=(0, 1, 2, 3, 4), num_words=NUM_WORDS)
masked = jax.jit(mask_tokens, static_argnames="masking")


@pytest.fixture(scope="module")
def tokens():
    """Uneven inputs with special tokens at both ends, and real words where the padding is."""
    rng = np.random.default_rng(0)
    length = rng.integers(3, WIDTH + 1, NUM_EXAMPLES).astype(np.int32)
    ids = rng.integers(5, NUM_WORDS, (NUM_EXAMPLES, WIDTH)).astype(np.int32)
    ids[:, 0] = 2
    ids[np.arange(NUM_EXAMPLES), length - 1] = 3
    return Tokens(ids=ids, types=np.zeros(ids.shape, np.uint8), length=length)


def is_free(tokens):
    """Real tokens that are not special."""
    is_real = np.arange(WIDTH)[None] < tokens.length[:, None]
    return is_real & ~np.isin(tokens.ids, MASKING.special)


def assert_rate(hits, num, rate):
    assert num > 1000
    assert abs(hits / num - rate) < 4 * np.sqrt(rate * (1 - rate) / num)


def test_rates(tokens):
    """Fifteen in a hundred; of those eight, one and one in ten, within four standard errors."""
    shown, labels = masked(jax.random.key(1), tokens, MASKING)
    shown, labels = np.asarray(shown.ids), np.asarray(labels)
    is_asked = labels != UNASKED
    num = is_asked.sum()
    assert_rate(num, is_free(tokens).sum(), 0.15)
    is_mask, is_kept = shown == MASKING.mask, shown == tokens.ids
    assert_rate((is_asked & is_mask).sum(), num, 0.8 + 0.1 / NUM_WORDS)
    assert_rate((is_asked & is_kept).sum(), num, 0.1 + 0.1 / NUM_WORDS)
    others = shown[is_asked & ~is_mask & ~is_kept]
    assert abs(others.mean() / (NUM_WORDS / 2) - 1) < 4 / np.sqrt(3 * len(others))


def test_what_is_asked_and_what_is_left(tokens):
    shown, labels = jax.device_get(masked(jax.random.key(2), tokens, MASKING))
    is_asked = labels != UNASKED
    np.testing.assert_array_equal(labels[is_asked], tokens.ids[is_asked])
    np.testing.assert_array_equal(shown.ids[~is_asked], tokens.ids[~is_asked])
    assert not (is_asked & ~is_free(tokens)).any()  # neither special tokens nor padding
    np.testing.assert_array_equal(shown.types, tokens.types)
    np.testing.assert_array_equal(shown.length, tokens.length)


def test_equal_keys_give_equal_bits(tokens):
    first, again, other = (
        jax.device_get(masked(jax.random.key(seed), tokens, MASKING)) for seed in (3, 3, 4)
    )
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    both = (first[1] != UNASKED) & (other[1] != UNASKED)
    assert_rate(both.sum(), is_free(tokens).sum(), 0.15**2)  # as independent draws


def write(folder, rows, split="train"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


PAIR = {"premise": "a b", "hypothesis": "c", "label": 1}


@pytest.mark.parametrize(
    ("row", "columns"),
    [({"text": "a"}, ["a"]), (PAIR, ["a b", "c"]), ({"sentence": "d", "label": 9}, ["d"])],
)
def test_columns_are_those_of_the_rows(row, columns, tmp_path):
    write(tmp_path, [row, row])
    found = read_rows(MLM, f"jsonl:{tmp_path}", "train")
    assert found.texts == tuple([text] * 2 for text in columns)
    assert not found.labels.any() and len(found.labels) == 2


def test_folders_by_turns(tmp_path):
    for i, folder in enumerate(("mnli", ".", "mlm")):
        write(tmp_path / folder, [{"text": "a" * (i + 1)}])
        assert read_rows(MLM, f"jsonl:{tmp_path}", "train").texts == (["a" * (i + 1)],)


def test_unfit_rows(tmp_path):
    write(tmp_path, [{"words": "a"}])
    with pytest.raises(ValueError, match="line 1: must have the column text, got 'words'"):
        read_rows(MLM, f"jsonl:{tmp_path}", "train")
    write(tmp_path, [PAIR, {"text": "a"}])
    with pytest.raises(ValueError, match="line 2: must have the column premise"):
        read_rows(MLM, f"jsonl:{tmp_path}", "train")


def test_the_eleventh_task(tmp_path):
    assert find_task("MLM") is MLM and "mlm" not in TASKS
    assert MLM.num_outputs == 0
    tokenizer = make_tokenizer(tmp_path)
    assert make_masking(tokenizer) == Masking(
        mask=ID["[MASK]"], special=(0, 1, 2, 3, 4), num_words=len(WORDS)
    )
    rows = [{"text": "a b c d e f g " * 3}] * 8
    for split in ("train", "validation"):
        write(tmp_path, rows, split)
    data, again = (load_text("mlm", f"jsonl:{tmp_path}", tokenizer) for _ in range(2))
    assert data.masking == make_masking(tokenizer)
    assert (data.train.tokens.ids != ID["[MASK]"]).all()  # drawn anew by each step
    labels = data.validation.labels
    np.testing.assert_array_equal(labels, again.validation.labels)
    is_asked = labels != UNASKED
    np.testing.assert_array_equal(labels[is_asked], data.train.tokens.ids[is_asked])
    guesses = np.where(is_asked, labels, 7)
    assert score(MLM, data.validation, guesses) == {"accuracy": 1.0}
    first = tuple(np.argwhere(is_asked)[0])
    guesses[first] += 1
    assert score(MLM, data.validation, guesses) == {"accuracy": 1 - 1 / is_asked.sum()}


def test_words_that_cannot_be_masked(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    for split in ("train", "validation"):
        write(tmp_path, [{"text": ""}], split)
    with pytest.raises(ValueError, match="validation: must hold words enough that some are masked"):
        load_text("mlm", f"jsonl:{tmp_path}", tokenizer)
    (tmp_path / "vocab.txt").write_text("\n".join(w for w in WORDS if w != "[MASK]"))
    with pytest.raises(ValueError, match=r"must hold \[MASK\] for masked language modelling"):
        load_text("mlm", f"jsonl:{tmp_path}", load_tokenizer(tmp_path))


@needs_real_tasks
@needs_real_encoder
def test_real_texts():
    tokenizer = load_tokenizer(find_checkpoint("minilm"))
    data = load_text("mlm", f"jsonl:{TEXT}/wnli", tokenizer, max_length=64)
    assert data.masking == Masking(mask=103, special=(0, 100, 101, 102, 103), num_words=30_522)
    assert data.validation.tokens.shape[0] == 71
    num = data.validation.tokens.length.sum() - 3 * 71
    assert_rate((data.validation.labels != UNASKED).sum(), num, 0.15)
