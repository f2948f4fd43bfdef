"""Questions on long contexts: windows that slide over the context, and answers read off logits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from imp_rg.config import require
from imp_rg.data.text.tokenize import Tokenizer, Tokens

NOWHERE = 0
"""Place of start and end where a window does not hold the answer: the first special token."""


class Question(NamedTuple):
    """One question.

    Attributes:
      question: Its text.
      context: The text that holds the answer.
      answers: Texts that are right.
      start: Character of the context at which the first answer starts.
    """

    question: str
    context: str
    answers: tuple[str, ...]
    start: int


class Windows(NamedTuple):
    """Questions with as much of their context as fits, several windows if it does not.

    Attributes:
      tokens: ``[CLS] question [SEP] part of the context [SEP]``.
      spans: First and last token of the first answer, `NOWHERE` if the window does not hold it
        whole, int32 [window 2].
      question: Of each window, [window].
      first: Token of the context at which the window starts, [window].
      prefix: Tokens of the window before those of the context, [window].
      offsets: For each question the characters at which the tokens of its context start and end,
        each [token 2].
      best: For each question the window in which each token of its context has most context on
        both sides, each [token]; answers are read there.
      num_truncated: Questions that were cut to their limit.
      num_empty: Questions without a token, or whose context has none.
    """

    tokens: Tokens
    spans: Int[np.ndarray, "window 2"]
    question: Int[np.ndarray, " window"]
    first: Int[np.ndarray, " window"]
    prefix: Int[np.ndarray, " window"]
    offsets: list[np.ndarray]
    best: list[np.ndarray]
    num_truncated: int
    num_empty: int


def make_windows(
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    *,
    max_length: int = 384,
    stride: int = 128,
    max_question: int = 64,
) -> Windows:
    """Tokenises questions and slides windows over their contexts.

    Args:
      tokenizer: Vocabulary.
      questions: With their contexts.
      max_length: Tokens of a window, special tokens included.
      stride: Tokens from the start of a window to that of the next.
      max_question: Tokens to which questions are cut.

    Raises:
      ValueError: If there is no question, or a limit leaves no room for the context.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 4.2, and their ``run_squad.py``. Differs in that words
      are split with their place in the context, so that spans need no repair.
    """
    require(len(questions) > 0, "questions", "must not be empty", len(questions))
    require(stride >= 1, "stride", "must be at least 1", stride)
    require(max_question >= 1, "max_question", "must be at least 1", max_question)
    rule = f"must leave room beside {max_question} tokens of question and 3 special ones"
    require(max_length > max_question + 3, "max_length", rule, max_length)
    texts = [q.question for q in questions], [q.context for q in questions]
    asked, contexts = map(tokenizer.split, texts)
    parts, spans, question, first, offsets, best = [], [], [], [], [], []
    for i, (ask, context) in enumerate(zip(asked, contexts, strict=True)):
        ids, num = ask.ids[:max_question], len(context.ids)
        room = max_length - 3 - len(ids)
        places = np.asarray(context.offsets, np.int32).reshape(-1, 2)
        starts = _window_starts(num, room, stride)
        stops = np.minimum(starts + room, num)
        best.append(len(parts) + _best_window(starts, stops, num))
        answer = _answer_tokens(questions[i], places)
        for start, stop in zip(starts, stops, strict=True):
            parts.append((ids, context.ids[start:stop]))
            spans.append(_span_in_window(answer, start, stop, prefix=len(ids) + 2))
        question += [i] * len(starts)
        first += starts.tolist()
        offsets.append(places)
    return Windows(
        tokens=tokenizer.assemble(parts),
        spans=np.asarray(spans, np.int32),
        question=np.asarray(question),
        first=np.asarray(first),
        prefix=np.asarray([len(ids) + 2 for ids, _ in parts]),
        offsets=offsets,
        best=best,
        num_truncated=sum(len(ask.ids) > max_question for ask in asked),
        num_empty=sum(not a.ids or not c.ids for a, c in zip(asked, contexts, strict=True)),
    )


def _window_starts(num_tokens: int, room: int, stride: int) -> np.ndarray:
    """First tokens of windows of `room` tokens; the last window reaches the end of the context."""
    return np.arange(0, max(num_tokens - room, 0) + min(stride, room), min(stride, room))


def _best_window(starts: np.ndarray, stops: np.ndarray, num_tokens: int) -> np.ndarray:
    """For each token the window where the shorter of its two sides is longest, the first of ties.

    Every token of the window itself adds 0.01 to that, so nearly equal sides go to the longer one.
    """
    token = np.arange(num_tokens)[None, :]
    before, after = token - starts[:, None], stops[:, None] - 1 - token
    side = np.minimum(before, after)
    score = np.where(side >= 0, side + 0.01 * (stops - starts)[:, None], -np.inf)
    return np.argmax(score, axis=0)


def _answer_tokens(question: Question, places: np.ndarray) -> tuple[int, int] | None:
    """First and last token that the first answer touches; None if it touches none."""
    stop = question.start + len(question.answers[0])
    touched = np.flatnonzero((places[:, 1] > question.start) & (places[:, 0] < stop))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _span_in_window(
    answer: tuple[int, int] | None, start: int, stop: int, *, prefix: int
) -> tuple[int, int]:
    if answer is None or answer[0] < start or answer[1] >= stop:
        return NOWHERE, NOWHERE
    return answer[0] - start + prefix, answer[1] - start + prefix


def find_answers(
    windows: Windows,
    questions: Sequence[Question],
    logits: Float[np.ndarray, "window token 2"],
    *,
    max_answer: int = 30,
) -> list[str]:
    """The passage of each context with the largest sum of start and end logit.

    A passage starts in the window where its first token has most context, ends in the same window,
    and has at most `max_answer` tokens.

    Args:
      windows: Of the questions, see `make_windows`.
      questions: Those that `windows` were made of.
      logits: Of start and end.
      max_answer: Tokens.

    Returns:
      One text for each question, cut out of its context; empty if the context is.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 4.2. Differs from their ``run_squad.py`` in that all
      passages are compared, not those between the 20 best starts and ends, and in that answers
      are cut out by their place instead of being joined from word pieces.
    """
    rule = f"must have one row for each of {len(windows.question)} windows"
    require(len(logits) == len(windows.question), "logits", rule, len(logits))
    scores, texts = np.full(len(questions), -np.inf), [""] * len(questions)
    for w, i in enumerate(windows.question):
        begin, offsets = windows.prefix[w], windows.offsets[i]
        num = windows.tokens.length[w] - begin - 1
        tokens = windows.first[w] + np.arange(num)
        start, end = np.asarray(logits[w, begin : begin + num], np.float64).T
        start = np.where(windows.best[i][tokens] == w, start, -np.inf)
        sums = start[:, None] + end[None, :]
        gap = tokens[None, :] - tokens[:, None]
        sums = np.where((gap >= 0) & (gap < max_answer), sums, -np.inf)
        if num and sums.max() > scores[i]:
            first, last = np.unravel_index(np.argmax(sums), sums.shape)
            scores[i] = sums[first, last]
            chars = offsets[tokens[first], 0], offsets[tokens[last], 1]
            texts[i] = questions[i].context[chars[0] : chars[1]]
    return texts
