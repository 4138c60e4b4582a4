"""BLEU beside NLTK's, CIDEr beside its paper's equation, and exact match."""

from collections import Counter

import numpy as np
import pytest

from cnn_jax import UserError
from cnn_jax.captioning import caption_scores, exact_match, scores, sentence

GUESSES = [
    "a boot to the left of a seven",
    "a bag above a two",
    "a dress below a pullover",
    "a three below a coat of a two",
]
REFERENCES = [
    ["a boot to the left of a seven", "a seven to the right of a boot"],
    ["a two below a bag", "a bag over a two"],
    ["a dress below a nine"],
    ["a three below a pullover", "a pullover above a three"],
]
# nltk 3.10.4, corpus_bleu with weights [1/n] * n: it takes the closest reference length, too.
BLEU = (0.7692307692307693, 0.7242068243779014, 0.6629552898402549, 0.6178110636313395)


def grams(text, n):
    words = text.split()
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def cider(guesses, references):
    """CIDEr-D, Vedantam 2014 (1411.5726), eq. 2-3 and sec. 5, with sigma 6, as the COCO server has it."""
    total, images = [], len(guesses)
    for n in range(1, 5):
        having = Counter(gram for several in references for gram in {g for text in several for g in grams(text, n)})

        def weights(text, n=n, having=having):
            return {gram: times * np.log(images / max(1, having[gram])) for gram, times in grams(text, n).items()}

        for guess, several in zip(guesses, references, strict=True):
            g = weights(guess)
            for text in several:
                r = weights(text)
                dot = sum(min(value, r[gram]) * r[gram] for gram, value in g.items() if gram in r)
                norms = np.sqrt(sum(v**2 for v in g.values()) * sum(v**2 for v in r.values()))
                apart = len(guess.split()) - len(text.split())
                total.append(10 / 4 / images / len(several) * dot / norms * np.exp(-(apart**2) / 72))
    return sum(total)


def test_bleu_is_nltks_and_cider_is_the_papers():
    found = caption_scores(GUESSES, REFERENCES)
    assert list(found) == ["bleu1", "bleu2", "bleu3", "bleu4", "cider"]
    np.testing.assert_allclose([found[f"bleu{n}"] for n in range(1, 5)], BLEU, rtol=1e-6)  # it adds 1e-9 to counts
    np.testing.assert_allclose(found["cider"], cider(GUESSES, REFERENCES), rtol=1e-6)


def test_sentences_that_say_the_same_have_the_highest_scores():
    found = caption_scores(GUESSES, [[guess] for guess in GUESSES])
    np.testing.assert_allclose([*found.values()], [1, 1, 1, 1, 10], rtol=1e-6)


def test_scores_say_what_they_need(monkeypatch):
    with pytest.raises(UserError, match="not 2 guesses and references for 1 images"):
        caption_scores(GUESSES[:2], [["a"], []])
    monkeypatch.setattr(scores, "can_score", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'cnn-jax\[caption\]'"):
        caption_scores(GUESSES, REFERENCES)


def test_a_guess_matches_one_of_its_references_word_by_word():
    references = np.array([[[4, 5, 2, 0], [6, 5, 2, 0], [0, 0, 0, 0]]], np.uint8)
    for guess, right in (
        ([6, 5, 2, 0], True),
        ([6, 5, 2, 0, 0, 0], True),
        ([6, 5, 2], True),
        ([6, 5, 0, 0], False),  # has not come to its end
        ([4, 5, 5, 2], False),
        ([0, 0, 0, 0], False),  # a row without a sentence
    ):
        assert exact_match(np.array([guess]), references).tolist() == [right], guess
    unknown = np.array([[[4, 3, 2]]])
    assert not exact_match(unknown[0], unknown).any()  # <unk> says nothing


def test_a_sentence_is_its_words_up_to_the_end():
    words = ("<pad>", "<start>", "<end>", "<unk>", "a", "dog")
    assert sentence(np.array([4, 5, 2, 5, 0]), words) == "a dog"
    assert sentence(np.array([4, 3, 0, 0]), words) == "a <unk>"
    assert sentence(np.array([4, 3, 2]), words, reference=True) == "a <other>"
