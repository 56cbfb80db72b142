"""Tokens of several roles: a token that is a word in the text, and none where the tokenizer puts it."""

import warnings
from itertools import product

import pytest
import torch
from test_word_boundaries import plain_tokenizer, tokenizer_of
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_latent.models.words.word_boundaries import token_kinds, word_ids_from_tokens

pytestmark = pytest.mark.filterwarnings("ignore:The tokens of TokenizersBackend do not show")

ROLES = ["bos", "eos", "unk", "pad"]
# Who shares a token: of each role, the first that has the same.
SHARED = [roles for roles in product(*(range(place + 1) for place in range(4))) if all(roles[one] == one for one in roles)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("template", ["$A", "bos $A", "$A eos", "bos $A eos"])
@pytest.mark.parametrize("shared", SHARED, ids=lambda shared: "=".join(ROLES[one] for one in shared))
def test_a_token_is_a_word_in_the_text_and_none_where_the_template_puts_it(shared, template, side):
    names = dict(zip(ROLES, (f"<{ROLES[one]}>" for one in shared), strict=True))
    vocabulary = {name: index for index, name in enumerate([*dict.fromkeys(names.values()), "a", "film"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk"]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single = " ".join(names.get(part, part) for part in template.split())
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[*vocabulary.items()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side=side, **{f"{role}_token": name for role, name in names.items()}
    )
    in_template = [role for role in ("bos", "eos") if role in template]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = token_kinds(tokenizer, len(vocabulary))
    places = {"bos": "beginning", "eos": "end"}
    ambiguous = [places[role] for role in in_template if names[role] == names["unk"]]
    assert [f"at the {' and the '.join(ambiguous)} of a text" in str(one.message) for one in caught] == [True] * bool(ambiguous)
    texts = ["a film", "zzz", "zzz a zzz film zzz", "zzz zzz", "film"]
    encoded = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    found = word_ids_from_tokens(encoded["input_ids"], encoded["attention_mask"], table)
    for row, text in enumerate(texts):
        own = [-1] * ("bos" in template) + [*range(len(text.split()))] + [-1] * ("eos" in template)
        padding = [-1] * (found.shape[1] - len(own))
        assert found[row].tolist() == (padding + own if side == "left" else own + padding), text
    if names["pad"] == names["unk"]:
        with pytest.raises(ValueError, match="Pass `attention_mask`: this tokenizer writes unknown words as it writes padding"):
            word_ids_from_tokens(encoded["input_ids"], None, table)
    else:
        alone = tokenizer("a film", return_tensors="pt", return_token_type_ids=False)["input_ids"]
        assert word_ids_from_tokens(alone, None, table).max() == 1


def test_a_token_that_ends_texts_is_no_word_where_nothing_is_unknown():
    """As in GPT-2, whose one special token is everything, and is put there by hand."""
    tokenizer = tokenizer_of("gpt-2")
    tokenizer.add_special_tokens(dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "[SEP]"))
    table = token_kinds(tokenizer, len(tokenizer))
    ids = torch.tensor([tokenizer("[SEP]a film[SEP]")["input_ids"]])
    assert word_ids_from_tokens(ids, None, table)[0, [0, 1, -1]].tolist() == [-1, 0, -1]
    assert word_ids_from_tokens(ids, None, table).max() == 1


def test_a_template_in_which_unknown_words_cannot_be_told():
    tokenizer = plain_tokenizer("whole words")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[UNK]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="$A [UNK] [SEP]", special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", sep_token="[SEP]")
    with pytest.raises(
        ValueError, match=r"writes unknown words as '\[UNK\]', which it also puts beside each text.*Pass `word_ids`"
    ):
        token_kinds(tokenizer, len(tokenizer))
