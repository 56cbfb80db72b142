"""Words read off tokens are those of a plain definition, whatever the tokenizer, its added tokens, and the white space."""

import json
import warnings
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_words import CORPUS, SPLIT
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import decoders as token_decoders
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hf_latent import LatentTreeForPairClassification, LatentTreeModel, parse
from hf_latent.models.words.word_boundaries import IN_NO_WORD, WHITE_SPACE, token_kinds, word_ids_from_tokens

pytestmark = pytest.mark.filterwarnings("ignore:The tokens of TokenizersBackend do not show")

KINDS = [
    "wordpiece",
    "whole words",
    "unigram",
    "metaspace",
    "gpt-2",
    "gpt-2 with prefix",
    "llama-3",
    "llama-2",
    "gemma",
    "clip",
]
# Those that write the whole text, white space of all kinds included.
SHOW_ALL = [kind for kind in KINDS if kind != "metaspace"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tokenizer_of(kind: str, corpus: list[str] = CORPUS, size: int = 80) -> PreTrainedTokenizerFast:
    """A small one of this kind."""
    options = {"vocab_size": size, "special_tokens": ["[UNK]", "[PAD]", "[CLS]", "[SEP]"], "show_progress": False}
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(initial_alphabet=list(LETTERS), **options)
    elif kind == "whole words":
        tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(**options)
    elif kind in ("unigram", "metaspace"):
        tokenizer = Tokenizer(models.Unigram())
        metaspace = pre_tokenizers.Metaspace()
        split = [pre_tokenizers.WhitespaceSplit(), metaspace] if kind == "unigram" else [metaspace]
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(split), token_decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="[UNK]", initial_alphabet=list(LETTERS), **options)
    elif kind in ("llama-2", "gemma"):
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        if kind == "llama-2":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        options["special_tokens"] += [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(**{**options, "vocab_size": 260 + size}, initial_alphabet=[*LETTERS, "▁"])
    elif kind == "clip":
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        names = [
            "[UNK]",
            "[PAD]",
            "[CLS]",
            "[SEP]",
            *alphabet,
            *(character + "</w>" for character in alphabet),
            "fi",
            "film</w>",
        ]
        vocabulary = {name: index for index, name in enumerate([*names, "lm</w>"])}
        tokenizer = Tokenizer(models.BPE(vocabulary, [("f", "i"), ("l", "m</w>"), ("fi", "lm</w>")], end_of_word_suffix="</w>"))
        tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
        split = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True)
        pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pieces])
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "gpt-2 with prefix")
        if kind == "llama-3":
            split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
            pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pieces])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(**{**options, "vocab_size": 260 + size}, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(corpus, trainer)
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = []  # bytes are none
    tokenizer = Tokenizer.from_str(json.dumps(description))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


plain_tokenizer = cache(tokenizer_of)


def found_words(tokenizer: PreTrainedTokenizerFast, text: str, table: torch.Tensor) -> list[str]:
    """The words that are read off the tokens, as stretches of the text."""
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids = torch.tensor([encoded["input_ids"]], dtype=torch.long)
    (word_ids,) = word_ids_from_tokens(ids, torch.ones_like(ids), table).tolist()
    spans: dict[int, list[int]] = {}
    for word, (start, end) in zip(word_ids, encoded["offset_mapping"], strict=True):
        if word >= 0:
            spans.setdefault(word, []).extend([start, end])
    assert list(spans) == list(range(len(spans)))
    return [text[min(own) : max(own)].strip(WHITE_SPACE) for own in spans.values()]


def character_class(character: str) -> str:
    return "letter" if character.isalpha() else "number" if character.isnumeric() else "other"


def defined_words(tokenizer: PreTrainedTokenizerFast, kind: str, text: str) -> list[str]:
    """The definition at the head of `word_boundaries`, by the characters that each token covers."""
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    added = {index: token.special for index, token in tokenizer.added_tokens_decoder.items()}
    added[tokenizer.unk_token_id] = None  # stands for words
    words: list[str] = []
    divided, end, covered, closed = True, 0, "", False
    for index, token, span in zip(encoded["input_ids"], encoded.tokens(), encoded["offset_mapping"], strict=True):
        own = text[slice(*span)]
        if added.get(index) or not own.strip(WHITE_SPACE):  # special, or white space
            divided, end = True, max(end, span[1])
            continue
        between = covered[-1:] + text[end : span[0]] + own[0]
        divided |= closed or any(character in WHITE_SPACE for character in between)
        divided |= added.get(index) is False  # an added token that is not special
        if kind in ("wordpiece", "whole words"):
            divided |= not token.startswith("##")
        elif kind.startswith("gpt-2") or kind == "llama-3":
            first, last = own.strip(WHITE_SPACE)[0], covered.strip(WHITE_SPACE)[-1:]
            divided |= bool(last) and span[0] >= end and character_class(first) != character_class(last)
        if divided:
            words.append("")
        words[-1] += text[max(end, span[0]) if not divided else span[0] : span[1]]
        closed = added.get(index) is False or token.endswith("</w>")
        divided, end, covered = False, max(end, span[1]), own
    return [word.strip(WHITE_SPACE) for word in words]


@pytest.mark.parametrize("space", WHITE_SPACE, ids=lambda space: f"U+{ord(space):04X}")
@pytest.mark.parametrize("kind", SHOW_ALL)
def test_white_space_of_every_kind_divides_words_and_is_none(kind, space):
    tokenizer = plain_tokenizer(kind)
    table = token_kinds(tokenizer, len(tokenizer))
    for text in (
        f"a{space}film",
        f"a{space * 2}film",
        f"{space}a film{space}",
        f" a {space}film {space}",
        f"a{space} {space}film",
    ):
        assert found_words(tokenizer, text, table) == ["a", "film"], text
    assert found_words(tokenizer, space * 3, table) == []
    # Neither do joiners and spaces of no width.
    joined = "a\u200dfilm\u200cs\u2060a\ufeffa"
    assert "".join(found_words(tokenizer, joined, table)) == joined


pieces = st.one_of(
    st.sampled_from(["a", "film", "unflinchingly", "music", "of", "it", "zebra", "100", "7", ".", ",", "--", "(", "?"]),
    st.sampled_from(["é", "naïve", "日本", "—", "\u200d", "<x>", "laugh", "ha ha"]),
    st.sampled_from([" ", " ", " ", "  ", *WHITE_SPACE]),
    st.text(LETTERS, min_size=1, max_size=4),
)
added_tokens = st.lists(
    st.builds(
        AddedToken,
        st.sampled_from(["<x>", "laugh", "ha ha", "film", "\n\n", "zeb"]),
        single_word=st.booleans(),
        lstrip=st.booleans(),
        rstrip=st.booleans(),
        normalized=st.booleans(),
        special=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda token: token.content,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(KINDS),
    corpus=st.lists(st.sampled_from([*CORPUS, "a film of music", "laugh out loud ha ha", "naïve 日本 film"]), min_size=1),
    size=st.integers(60, 300),
    added=added_tokens,
    texts=st.lists(st.lists(pieces, max_size=12).map("".join), min_size=1, max_size=6),
)
def test_the_words_of_random_tokenizers_are_those_of_the_definition(kind, corpus, size, added, texts):
    tokenizer = tokenizer_of(kind, corpus, size)
    tokenizer.add_tokens(added)
    table = token_kinds(tokenizer, len(tokenizer))
    for text in texts:
        if kind == "metaspace":  # which writes other white space as it writes unknown letters
            text = "".join(" " if character in WHITE_SPACE else character for character in text)
        assert found_words(tokenizer, text, table) == defined_words(tokenizer, kind, text), (text, tokenizer.tokenize(text))
        if kind in ("wordpiece", "whole words", "unigram") and not added:  # whose own words are of this kind
            encoded = tokenizer(text, return_tensors="pt")
            own = [IN_NO_WORD if word is None else word for word in encoded.word_ids(0)]
            assert word_ids_from_tokens(encoded["input_ids"].long(), None, table)[0].tolist() == own, text


# --- What stands in the table


def reading_of_format_1(input_ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """What models that were saved before computed with their tables, in uint8, of two flags and two classes."""
    kinds = table[input_ids].long()
    inside, first, last = (kinds & 1) == 0, kinds >> 2 & 3, kinds >> 4 & 3
    previous = [torch.nn.functional.pad(values[:, :-1].long(), (1, 0)) for values in (inside, last)]
    opens = (kinds & 2 != 0) | (previous[0] == 0) | ((first != previous[1]) & (first != 0) & (previous[1] != 0))
    return ((opens & inside).long().cumsum(1) - 1).masked_fill(~inside, -1)


@pytest.mark.parametrize("byte_level", [False, True])
def test_tables_that_were_saved_by_older_versions_mean_the_same(byte_level, tiny_bert, tmp_path):
    plain = torch.tensor([0, 1, 2])
    # Of the byte-level kind, tokens without a class are white space, which opened words.
    classes = torch.tensor([opens | first << 2 | last << 4 for opens, first, last in product((0, 2), (1, 2, 3), (1, 2, 3))])
    table = (torch.cat([plain[1:], classes]) if byte_level else plain).to(torch.uint8)
    ids = torch.randint(len(table), (300, 20))
    assert torch.equal(word_ids_from_tokens(ids, torch.ones_like(ids), table), reading_of_format_1(ids, table))
    model = LatentTreeModel.from_encoder(tiny_bert)
    model.token_kinds = table[torch.arange(16) % len(table)]
    model.config.format_version = 1
    model.save_pretrained(tmp_path)
    loaded = LatentTreeModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.find_words(ids % 16), reading_of_format_1(ids % 16, model.token_kinds))
    assert loaded.resize_token_embeddings(20).num_embeddings == 20
    assert loaded.find_words(torch.tensor([[16, 19]])).tolist() == [[0, 1]]


def padded_bert(rows: int) -> BertModel:
    return BertModel(
        BertConfig(vocab_size=rows, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    )


@pytest.mark.parametrize("when", ["before the model", "after the model", "and resized", "and resized to a multiple of 64"])
@pytest.mark.parametrize("spare", [0, 40])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "whole words"])
def test_added_tokens_are_words_of_their_own(kind, spare, when):
    tokenizer = tokenizer_of(kind)
    size = len(tokenizer) + spare

    def add() -> None:
        tokenizer.add_tokens([AddedToken("masterpiece", lstrip=True, rstrip=True), AddedToken("<laugh>", normalized=False)])

    if when == "before the model":
        add()
        size += 0 if spare else 2
    model = LatentTreeModel.from_encoder(padded_bert(size), tokenizer, estimator="marginals")
    if when != "before the model":
        add()
    if when == "after the model" and not spare:
        return  # then the encoder has no room for them
    if "resized" in when:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64 if "64" in when else None)
    for text, words in {
        "a masterpiece film": ("a", "masterpiece", "film"),
        "masterpiece masterpiece": ("masterpiece", "masterpiece"),
        "film<laugh>film <laugh>": ("film", "<laugh>", "film", "<laugh>"),
    }.items():
        assert parse(model, tokenizer, [text])[0].words == words, text


def test_special_tokens_are_no_words_wherever_they_were_declared():
    tokenizer = tokenizer_of("wordpiece")
    tokenizer.add_tokens([AddedToken("<a>", special=True, lstrip=True, rstrip=True), AddedToken("<b>", special=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<c>"], "mask_token": "[MASK]"})
    table = token_kinds(tokenizer, len(tokenizer))
    assert found_words(tokenizer, "film <a> film <b> [MASK], <c>", table) == ["film", "film", "<b>", "[MASK]", ","]
    model = LatentTreeModel.from_encoder(padded_bert(len(tokenizer) + 1), tokenizer)
    tokenizer.add_tokens("<d>", special_tokens=True)
    ids = tokenizer("film <d>", return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert model.find_words(ids).max() == 1  # not known yet
    model.set_word_boundaries(tokenizer)
    assert model.find_words(ids).max() == 0


def test_a_tokenizer_that_does_not_show_line_breaks_says_so():
    tokenizer = tokenizer_of("metaspace")
    with pytest.warns(UserWarning, match=r"do not show some white space \('\\t', '\\n'.*Replace it by blanks"):
        token_kinds(tokenizer, len(tokenizer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in SHOW_ALL:
            token_kinds(plain_tokenizer(kind), len(plain_tokenizer(kind)))


@pytest.mark.parametrize("text", [" a  film ", "a\n\nfilm", "\ta\u2028film\u3000"])
@pytest.mark.parametrize("kind", ["gpt-2", "llama-3", "llama-2", "gemma"])
def test_white_space_does_not_make_pairs_of_sentences(kind, text):
    """In tokenizers without token types, special tokens between words do."""
    tokenizer = tokenizer_of(kind)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    encoded = tokenizer(text, text, return_tensors="pt", return_token_type_ids=False)
    model = LatentTreeForPairClassification.from_encoder(padded_bert(len(tokenizer)), tokenizer, estimator="marginals")
    assert model(**encoded).num_words.tolist() == [[2, 2]]
    with pytest.raises(ValueError, match="Row 0 of the batch is not a pair"):
        model(**tokenizer(text, return_tensors="pt"))
