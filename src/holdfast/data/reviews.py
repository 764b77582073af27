"""Amazon-style reviews: one JSON object a line, with a text and a rating; positive or negative is the label."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.dataset import Dataset, assemble, split_rows
from holdfast.types import DataError

OFFICIAL = "reviews_Kindle_Store_5.json.gz"
VOCABULARY_FILE = "vocabulary.txt"
VOCABULARY_SIZE = 25_000
MAX_LENGTH = 256
TEST_SHARE = 0.2
PADDING, UNKNOWN = 0, 1
LABELS = ("negative", "positive")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def find_reviews(folder: Path) -> bool:
    """Whether the folder holds exactly one .json or .json.gz file (two would be a guess)."""
    return len(_candidates(folder)) == 1


def read_reviews(path: Path, *, seed: int, vocabulary: Sequence[str] | None = None) -> Dataset:
    """Reviews as rows of token ids: rating 1 or 2 is negative, 4 or 5 positive, 3 is left out.

    A word is a run of letters and digits, lower case, apostrophes inside kept. Id 0 pads, id 1 stands for words
    outside the vocabulary; `Dataset.vocabulary` names every id. Texts are cut at 256 words. A fifth of each label's
    rows, drawn from `seed`, is held back. The setting of "Residual-based reweighting", section 4.1 and appendix.

    The vocabulary is a word list in `vocabulary.txt` beside the reviews (a word a line) where there is one. Otherwise
    it is made of the 24,998 most frequent words of the training rows. **That is a computation across clients**: a
    real federation must take the list from public text or from trusted parties, since clients who lie about their
    words could push others' words out of it, and no aggregation rule or certificate here covers that step.

    Args:
        path: a .json or .json.gz file, or a folder with one.
        seed: draws the test rows.
        vocabulary: words to use, most important first, in place of both.

    Raises:
        DataError: a line that is not JSON or lacks `reviewText` or a rating from 1 to 5; no review of one kind.
    """
    if path.is_dir():
        files = _candidates(path)
        if len(files) != 1:
            raise DataError(f"{path} has {len(files)} .json or .json.gz files; one is needed")
        words_file = path / VOCABULARY_FILE
        path = files[0]
    else:
        words_file = path.parent / VOCABULARY_FILE
    texts, y = _read_lines(path)
    keep, _ = split_rows(y, seed=seed, share=TEST_SHARE)
    words = [tokenize(text) for text in texts]
    if vocabulary is None and words_file.is_file():
        vocabulary = words_file.read_text(encoding="utf-8").split()
    if vocabulary is None:
        vocabulary = frequent_words((words[row] for row in keep), VOCABULARY_SIZE - 2)
    x = encode(words, vocabulary)
    data = assemble("reviews", x, y, label_names=LABELS, seed=seed, test_share=TEST_SHARE, tokens=True)
    return replace(data, vocabulary=("<padding>", "<unknown>", *vocabulary))


def tokenize(text: str) -> list[str]:
    """The words of a text.

    Example:
        >>> tokenize("It's GREAT -- 5 stars!")
        ["it's", 'great', '5', 'stars']
    """
    return _WORD.findall(text.lower())


def frequent_words(texts: Iterable[list[str]], size: int) -> tuple[str, ...]:
    """The `size` most frequent words, ties in alphabetical order.

    Example:
        >>> frequent_words([["b", "a"], ["b", "c"]], 2)
        ('b', 'a')
    """
    counts = Counter(word for words in texts for word in words)
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:size])


def encode(texts: Sequence[list[str]], vocabulary: Sequence[str]) -> NDArray[np.int32]:
    """Token ids, `[M, length]`, padded at the end; an empty text is one unknown word.

    Example:
        >>> encode([["b", "x"], []], ["a", "b"]).tolist()
        [[3, 1], [1, 0]]
    """
    ids = {word: number for number, word in enumerate(vocabulary, start=2)}
    length = max(1, min(MAX_LENGTH, max((len(words) for words in texts), default=1)))
    x = np.full((len(texts), length), PADDING, dtype=np.int32)
    for row, words in enumerate(texts):
        tokens = [ids.get(word, UNKNOWN) for word in words[:length]] or [UNKNOWN]
        x[row, : len(tokens)] = tokens
    return x


def _candidates(folder: Path) -> list[Path]:
    official = folder / OFFICIAL
    if official.is_file():
        return [official]
    return sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")])


def _read_lines(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Texts and labels of all reviews that are not rated 3."""
    texts: list[str] = []
    labels: list[int] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    text, rating = _review(path, number, line)
                    if rating != 3:
                        texts.append(text)
                        labels.append(int(rating > 3))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); get it again") from error
    if len(set(labels)) < 2:
        raise DataError(f"{path} has {len(labels)} reviews rated other than 3, not of both kinds; nothing to learn")
    return texts, np.array(labels, dtype=np.int64)


def _review(path: Path, number: int, line: str) -> tuple[str, float]:
    try:
        review: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number} is not JSON; each line must be one JSON object") from error
    text, rating = (review.get("reviewText"), review.get("overall")) if isinstance(review, dict) else (None, None)
    if not isinstance(text, str) or isinstance(rating, bool) or rating not in (1, 2, 3, 4, 5):
        raise DataError(f"{path}, line {number} lacks a reviewText or an overall rating of 1, 2, 3, 4 or 5")
    return text, float(rating)
