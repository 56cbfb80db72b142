"""Sentences whose words are given, as a latent-tree model takes them."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from hf_latent.models.losses import IGNORED
from hf_latent.models.words.word_boundaries import IN_NO_WORD


def encode_words(
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence,
    heads: Sequence | None = None,
    labels: Any = None,
    max_length: int | None = None,
    relations: Sequence | None = None,
) -> dict[str, list]:
    """The features of a sentence whose words are given, or of a batch of them (as `Dataset.map(..., batched=True)` wants).

    They are the tokenizer's, `word_ids` (the word of each token, -1 for tokens of none; of pairs, in either sentence) and,
    where given, `heads`, `relations` and `labels`. [`DataCollatorForLatentTrees`] makes batches of them.

    Args:
        words: a sentence, as a list of its words; a batch of sentences; or a batch of pairs of sentences.
        heads: of each word 0 (ROOT) or j for the j-th word, -100 where unknown; None in place of those of a sentence of which
            none is known.
        labels: of each word a class number, -100 where unknown, which comes to stand at the word's first token (-100 at all
            others), as in transformers' examples; or a label of each sentence or pair, a number or a list of floats, which
            stays as it is. None in place of those of a sentence that has none.
        max_length: longer sentences are cut, in tokens. Words that are cut off are gone, with their heads and labels, and the
            heads of words that hung from them are unknown. By default nothing is cut.
        relations: of each word to its head, the number of a relation (its place in `config.relations`; of a parser, that in
            `config.label2id`), -100 where unknown; None in place of those of a sentence of which none is known.

    Raises:
        TypeError: words that are not strings.
        ValueError: a tokenizer that is not a fast one; a `max_length` without room for the tokens that it adds by itself;
            a word that has no token, and so no vector (left out, it would shift all words after it: mend it, or leave it out
            with its head and label); heads, relations or labels that do not fit the words.
    """
    _check_types(tokenizer, words)
    words = list(words)
    if all(isinstance(word, str) for word in words):
        own_heads, own_labels, own_relations = ([own] if own is not None else None for own in (heads, labels, relations))
        batch = encode_words(tokenizer, [words], own_heads, own_labels, max_length, own_relations)
        return {name: values[0] for name, values in batch.items()}
    are_pairs = any(_is_list(own) and len(own) and not isinstance(next(iter(own)), str) for own in words)
    examples = [list(own) if are_pairs and _is_list(own) else [own] for own in words]
    for row, example in enumerate(examples):
        _check_words(example, row, 2 if are_pairs else 1)
    encoded = _tokenize(tokenizer, examples)
    for row, example in enumerate(examples):
        _check_tokens(example, _word_ids(encoded, row, example))
    if max_length is not None:
        _check_max_length(max_length, tokenizer.num_special_tokens_to_add(pair=are_pairs))
        encoded = _tokenize(tokenizer, examples, truncation=True, max_length=max_length)
    word_ids = [_word_ids(encoded, row, example) for row, example in enumerate(examples)]
    features: dict[str, list] = {**encoded, "word_ids": [[_from_0(own) for own in found] for found in word_ids]}
    for name, given, read in (("heads", heads, _heads), ("relations", relations, _relations)):
        if given is not None:
            features[name] = _of_words(name, given, read, examples, word_ids, are_pairs)
    if not are_pairs:
        of_sentences = [name for name in ("word_ids", "heads", "relations") if name in features]
        features |= {name: [own for (own,) in features[name]] for name in of_sentences}
    if labels is not None:
        features["labels"] = _labels_of_batch(labels, examples, word_ids, are_pairs)
    return features


def _tokenize(tokenizer: PreTrainedTokenizerBase, examples: list, **options: Any) -> BatchEncoding:
    texts = [[list(own) for own in sentences] for sentences in zip(*examples, strict=True)]
    return tokenizer(*texts, is_split_into_words=True, verbose=False, **options)


def _word_ids(encoded: BatchEncoding, row: int, example: list) -> list[list[int]]:
    """The word of each token in each sentence of an example."""
    found = list(zip(encoded.word_ids(row), encoded.sequence_ids(row), strict=True))
    return [[word if word is not None and own == one else IN_NO_WORD for word, own in found] for one in range(len(example))]


def _kept(word_ids: list[int]) -> range:
    """The words that were not cut off, at the right or the left."""
    words = [word for word in word_ids if word != IN_NO_WORD]
    return range(min(words), max(words) + 1) if words else range(0)


def _from_0(word_ids: list[int]) -> list[int]:
    first = _kept(word_ids).start
    return [word if word == IN_NO_WORD else word - first for word in word_ids]


def _of_words(
    name: str, values: Sequence, read: Callable, examples: list, word_ids: list[list[list[int]]], are_pairs: bool
) -> list:
    """Heads or relations, as `read` finds those of a sentence: for each example, those of each of its sentences."""
    values = _check_count(name, values, examples)
    found = []
    for row, (example, own_word_ids) in enumerate(zip(examples, word_ids, strict=True)):
        given = [values[row]] if not are_pairs else [None, None] if values[row] is None else values[row]
        given = _check_count(f"{name}[{row}]", given, example)
        found.append([read(*own, row) for own in zip(given, example, own_word_ids, strict=True)])
    return found


def _heads(heads: Sequence | None, words: Sequence[str], word_ids: list[int], row: int) -> list[int]:
    """The heads of the words that were not cut off."""
    own = _one_a_word("heads", heads, words, row)
    for word, head in enumerate(own):
        if not isinstance(head, Integral) or not (head == IGNORED or 0 <= int(head) <= len(words)):
            raise ValueError(
                f"`heads` must be whole numbers between 0 (ROOT) and the number of words, or {IGNORED}, but in sentence {row} "
                f"of {len(words)} words, that of word {word} is {head!r}."
            )
    kept = _kept(word_ids)
    return [
        head if head <= 0 else head - kept.start if head - 1 in kept else IGNORED for head in (int(own[word]) for word in kept)
    ]


def _relations(relations: Sequence | None, words: Sequence[str], word_ids: list[int], row: int) -> list[int]:
    """The relations of the words that were not cut off."""
    own = _one_a_word("relations", relations, words, row)
    for word, relation in enumerate(own):
        if not isinstance(relation, Integral) or not (relation == IGNORED or int(relation) >= 0):
            raise ValueError(
                f"`relations` must be numbers from 0, or {IGNORED}, but in sentence {row} that of word {word} is {relation!r}. "
                "Number them as the model does: a parser by `config.label2id`, others by `config.relations.index`."
            )
    return [int(own[word]) for word in _kept(word_ids)]


def _labels_of_batch(labels: Any, examples: list, word_ids: list[list[list[int]]], are_pairs: bool) -> list:
    """Of words, at their first tokens; of whole examples, as they are."""
    labels = _check_count("labels", labels, examples)
    of_words = any(_are_of_words(own) for own in labels)
    if of_words and are_pairs:
        raise ValueError("`labels` of words are for sentences, not for pairs of them: pass one label for each pair.")
    return [
        _token_labels(own, example[0], found[0], row) if of_words else IGNORED if own is None else own
        for row, (own, example, found) in enumerate(zip(labels, examples, word_ids, strict=True))
    ]


def _token_labels(labels: Any, words: Sequence[str], word_ids: list[int], row: int) -> list[int]:
    """The label of each word, at its first token."""
    own = _one_a_word("labels", labels, words, row)
    wrong = [label for label in own if not isinstance(label, Integral)]
    if wrong:
        raise ValueError(f"`labels` of words must be class numbers, but sentence {row} has {wrong[0]!r}. Number the classes.")
    before = [IN_NO_WORD, *word_ids[:-1]]
    return [IGNORED if word in (IN_NO_WORD, last) else int(own[word]) for last, word in zip(before, word_ids, strict=True)]


def _one_a_word(name: str, values: Any, words: Sequence[str], row: int) -> list:
    if values is None:
        return [IGNORED] * len(words)
    if not _is_list(values):
        raise ValueError(f"`{name}` of sentence {row} must be a list with an entry for each of its words, got {values!r}.")
    if len(values) != len(words):
        raise ValueError(f"`{name}` of sentence {row} are {len(values)}, but it has {len(words)} words.")
    return _listed(values)


def _are_of_words(labels: Any) -> bool:
    """Whether they are a list of class numbers; floats are several labels of one sentence."""
    return _is_list(labels) and not any(isinstance(label, float) for label in _listed(labels))


def _is_list(value: Any) -> bool:
    """Whether it is a list, or what is like one: a tuple, an array or a tensor with a dimension, a column of a table."""
    return hasattr(value, "__len__") and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def _listed(values: Any) -> list:
    return [value.item() if getattr(value, "ndim", None) == 0 else value for value in values]


def _check_types(tokenizer: Any, words: Any) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"`tokenizer` must be a fast one, which tells the words of tokens, got {type(tokenizer).__name__}.")
    if isinstance(words, str):
        raise TypeError(f"`words` must be a list of words, got one string, {words!r}: split it, or call the tokenizer itself.")
    if not isinstance(words, Iterable):
        raise TypeError(f"`words` must be a list of words, got {words!r}.")


def _check_count(name: str, values: Any, examples: Sequence) -> list:
    if not _is_list(values):
        raise ValueError(f"`{name}` must be a list with an entry for each of {len(examples)} sentences, got {values!r}.")
    if len(values) != len(examples):
        raise ValueError(f"`{name}` must have an entry for each of {len(examples)} sentences, got {len(values)}.")
    return list(values)


def _check_max_length(max_length: Any, added: int) -> None:
    """Raises where tokenizers would cut nothing, without a word."""
    shortest = max(added, 1)
    if not isinstance(max_length, Integral) or max_length < shortest:
        raise ValueError(
            f"`max_length` must be a whole number of at least {shortest}, since the tokenizer adds {added} tokens by itself, "
            f"got {max_length!r}."
        )


def _check_words(example: list, row: int, sentences: int) -> None:
    are_words = [_is_list(own) and all(isinstance(word, str) for word in own) for own in example]
    if len(example) != sentences or not all(are_words):
        raise TypeError(
            "`words` must be a list of words, a list of such lists, or a list of pairs of them, throughout; got "
            f"{(example if sentences == 2 else example[0])!r} as sentence {row}."
        )


def _check_tokens(example: list, word_ids: list[list[int]]) -> None:
    """Raises unless each word has a token."""
    for words, found in zip(example, word_ids, strict=True):
        lost = sorted(set(range(len(words))) - set(found))
        if lost:
            raise ValueError(
                f"The tokenizer has no token for word {lost[0]} ({words[lost[0]]!r}) of {' '.join(words)[:60]!r}. Mend the "
                "word, or leave it out together with its head and label."
            )
