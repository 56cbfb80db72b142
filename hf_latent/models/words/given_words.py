"""Words that are given, such as those of a treebank, are not always those that can be read off their tokens."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hf_latent.inference.checks import is_eager
from hf_latent.models.losses import IGNORED

_ADVICE = (
    "Pass the words that were given as `word_ids`: `hf_latent.encode_words` makes them, and "
    "`hf_latent.DataCollatorForLatentTrees` their batches."
)


def check_heads(word_ids: Tensor, heads: Tensor) -> None:
    """Raises where gold heads `(..., columns)` are not of the words `(..., tokens)` that were read off the tokens.

    They are of other words where a head is known beyond the last word; where there are fewer columns than a sentence has
    words, and some head; and where the first k words of a sentence have heads, each of them, and none of the others has.
    (Trees that are known in part have gaps. Who knows the heads of the first k words and of no other passes `word_ids`.)
    """
    if not is_eager() or not word_ids.numel() or heads.shape[:-1] != word_ids.shape[:-1]:
        return
    num_words = (word_ids.amax(-1) + 1).clamp(min=0)
    known = heads.to(word_ids.device) != IGNORED
    place = torch.arange(1, heads.shape[-1] + 1, device=word_ids.device)
    count, last = known.sum(-1), (place * known).amax(-1) if heads.shape[-1] else known.sum(-1)
    fewer = (count > 0) & (last < num_words) & ((count == last) | (heads.shape[-1] < num_words))
    wrong = fewer | (last > num_words)
    if wrong.any():
        row = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"heads{list(row)} are of {int(last[row])} words, but {int(num_words[row])} were read off its tokens. {_ADVICE}"
        )


def check_token_labels(word_ids: Tensor, labels: Tensor, names: Mapping[int, str]) -> None:
    """Raises where token labels `(batch, tokens)` are not of the words `(batch, tokens)` that were read off the tokens.

    In a row with labels, each word has one at its first token; its other tokens have none, the same, or, of a "B-X" by the
    `names`, "I-X"; tokens of no word have none. (Who knows the labels of some words only passes `word_ids`.)
    """
    if not is_eager() or not word_ids.numel() or labels.shape != word_ids.shape:
        return
    labels = labels.to(word_ids.device)
    so_far = word_ids.cummax(1).values
    opens = word_ids > torch.nn.functional.pad(so_far[:, :-1], (1, 0), value=-1)
    place = torch.arange(word_ids.shape[1], device=word_ids.device).expand_as(word_ids)
    of_first = labels.gather(1, place.where(opens, 0).cummax(1).values)
    labelled = labels != IGNORED
    numbers = {name: number for number, name in names.items()}
    goes_on = [numbers.get(re.sub("^B-", "I-", names[number]), number) for number in sorted(names)]
    inside = torch.tensor(goes_on, device=labels.device)[of_first.clamp(0, len(names) - 1)]
    unlabelled = opens & ~labelled & labelled.any(1, keepdim=True)
    wrong = unlabelled | (labelled & ((word_ids < 0) | ((labels != of_first) & (labels != inside))))
    if wrong.any():
        row, token = wrong.nonzero()[0].tolist()
        found = "opens a word and has no label" if unlabelled[row, token] else "has a label and opens no word"
        raise ValueError(f"labels[{row}] are not of the words that were read off its tokens: token {token} {found}. {_ADVICE}")
