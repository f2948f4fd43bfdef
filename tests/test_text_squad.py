"""Windows over contexts, labels inside them, and answers read off logits."""

import numpy as np
import pytest
from text_inputs import make_tokenizer, words_of

from imp_rg.data.text.squad import NOWHERE, Question, find_answers, make_windows

CONTEXT = "a b c d e f g a b c"
SHORT = Question("the ?", "a bxy, c.", ("bxy",), 2)
LONG = Question("d d d ?", CONTEXT, ("f g a",), 10)


@pytest.fixture
def windows(tmp_path):
    """Two windows for `SHORT`, four for `LONG`; each starts two tokens after the one before."""
    return make_windows(
        make_tokenizer(tmp_path), [SHORT, LONG], max_length=10, stride=2, max_question=3
    )


def pointing(windows, *points):
    """Logits that are 1 at the given (window, token, side)."""
    logits = np.zeros((*windows.tokens.shape, 2), np.float32)
    for point in points:
        logits[point] = 1
    return logits


def test_windows_slide_to_the_end(windows):
    tokens = windows.tokens
    assert [words_of(ids[:n]) for ids, n in zip(tokens.ids, tokens.length, strict=True)] == [
        "[CLS] the ? [SEP] a b ##x ##y , [SEP]",
        "[CLS] the ? [SEP] ##x ##y , c . [SEP]",
        "[CLS] d d d [SEP] a b c d [SEP]",
        "[CLS] d d d [SEP] c d e f [SEP]",
        "[CLS] d d d [SEP] e f g a [SEP]",
        "[CLS] d d d [SEP] g a b c [SEP]",
    ]
    np.testing.assert_array_equal(tokens.types[0], [0] * 4 + [1] * 6)
    np.testing.assert_array_equal(tokens.types[3], [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(windows.question, [0, 0, 1, 1, 1, 1])
    assert (windows.num_truncated, windows.num_empty) == (1, 0)  # LONG asked four words


def test_spans_lie_where_the_answer_is_whole(windows):
    """The answer "bxy" is three tokens; only its first window has all of them."""
    nowhere = (NOWHERE, NOWHERE)
    np.testing.assert_array_equal(
        windows.spans, [(5, 7), nowhere, nowhere, nowhere, (6, 8), nowhere]
    )


def test_tokens_belong_to_the_window_with_most_around_them(windows):
    """By hand: the shorter side counts, then the longer window, then the earlier one."""
    np.testing.assert_array_equal(windows.best[0], [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(windows.best[1], [2, 2, 2, 3, 3, 4, 4, 5, 5, 5])


def test_of_similar_sides_the_longer_window_wins(tmp_path):
    """Of 300 and 150 tokens, at 0.01 each: the longer is ahead by 1.5 tokens of side.

    Token 250 has 49 tokens after it in the first window and 50 before it in the second.
    """
    question = Question("?", "a " * 350, ("a",), 0)
    windows = make_windows(
        make_tokenizer(tmp_path), [question], max_length=304, stride=200, max_question=1
    )
    np.testing.assert_array_equal(windows.tokens.length - windows.prefix - 1, [300, 150])
    np.testing.assert_array_equal(windows.best[0], np.arange(350) > 250)


def test_answers_are_cut_out_of_the_context(windows):
    questions = [SHORT, LONG]
    found = find_answers(
        windows, questions, pointing(windows, (0, 5, 0), (0, 7, 1), (4, 6, 0), (4, 8, 1))
    )
    assert found == ["bxy", "f g a"]
    # Half a word is cut out as half a word.
    halves = pointing(windows, (0, 6, 0), (0, 7, 1), (3, 6, 0), (3, 6, 1))
    assert find_answers(windows, questions, halves) == ["xy", "d"]


def test_answers_obey_the_rules(windows):
    """An end before its start, a start outside its window, special tokens, long passages."""
    questions = [SHORT, LONG]

    def found(*points, **settings):
        return find_answers(windows, questions, pointing(windows, *points), **settings)

    backwards = found((0, 7, 0), (0, 7, 0), (0, 5, 1), (3, 6, 0), (3, 6, 1))
    assert backwards[0] != ""
    # Token "c" is in windows 2 and 3; it is read in 2, so the same logits in 3 do not count.
    assert found((2, 7, 0), (2, 7, 1))[1] == "c"
    assert found((3, 5, 0), (3, 5, 1))[1] != "c"
    logits = pointing(windows, (2, 0, 0), (2, 1, 1), (2, 4, 0), (2, 9, 1))  # question and [SEP]
    logits[4, 6] = 0.5
    assert find_answers(windows, questions, logits)[1] == "f"
    points = ((2, 5, 0), (2, 8, 1))
    assert found(*points)[1] == "a b c d"
    assert len(found(*points, max_answer=3)[1].split()) <= 3


def test_the_best_window_wins(windows):
    logits = pointing(windows, (2, 5, 0), (2, 5, 1))
    logits[5, 8] = 3
    assert find_answers(windows, [SHORT, LONG], logits)[1] == "c"


def test_empty_contexts_and_answers_between_tokens(tmp_path):
    questions = [Question("a", "", ("a",), 0), Question("", "a \u200b b", ("\u200b",), 2)]
    windows = make_windows(make_tokenizer(tmp_path), questions, max_length=12, max_question=3)
    assert windows.num_empty == 2
    np.testing.assert_array_equal(windows.spans, NOWHERE)
    logits = pointing(windows, (1, 2, 0), (1, 2, 1))
    assert find_answers(windows, questions, logits) == ["", "a"]


def test_characters_that_the_tokenizer_drops_keep_their_place(tmp_path):
    """Accents are stripped and control characters dropped; answers come from the context itself."""
    question = Question("?", "\u0007É  a\u0301 B", ("a\u0301 B",), 4)
    windows = make_windows(make_tokenizer(tmp_path), [question], max_length=12, max_question=1)
    assert words_of(windows.tokens.ids[0]) == "[CLS] ? [SEP] e a b [SEP]"
    np.testing.assert_array_equal(windows.spans, [[4, 5]])
    logits = pointing(windows, (0, 4, 0), (0, 5, 1))
    (found,) = find_answers(windows, [question], logits)
    assert found.endswith("B") and found[0] == "a"


def test_unfit_settings(windows, tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="max_length: must leave room beside 64 tokens"):
        make_windows(tokenizer, [SHORT], max_length=67)
    with pytest.raises(ValueError, match="stride: must be at least 1, got 0"):
        make_windows(tokenizer, [SHORT], stride=0)
    with pytest.raises(ValueError, match="max_question: must be at least 1, got 0"):
        make_windows(tokenizer, [SHORT], max_question=0)
    with pytest.raises(ValueError, match="questions: must not be empty"):
        make_windows(tokenizer, [])
    with pytest.raises(ValueError, match="logits: must have one row for each of 6 windows, got 1"):
        find_answers(windows, [SHORT, LONG], np.zeros((1, 10, 2)))
