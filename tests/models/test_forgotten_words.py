"""Words that are given and then forgotten: heads and labels of other words than those of the tokens are an error."""

import gzip
import itertools

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
)

from hf_latent import (
    DataCollatorForLatentTrees,
    LatentTreeForSequenceClassification,
    LatentTreeForTokenClassification,
    LatentTreeModel,
    encode_words,
)
from hf_latent.models.words.given_words import check_heads, check_token_labels


@pytest.mark.parametrize(
    "model_class", [LatentTreeModel, LatentTreeForSequenceClassification, LatentTreeForTokenClassification]
)
def test_heads_of_other_words_than_those_of_the_tokens(tiny_bert, wordpiece, model_class):
    model = model_class.from_encoder(tiny_bert, wordpiece, estimator="marginals")
    encoded = wordpiece(
        [["a", "film."], ["not", "a", "good", "film"]], is_split_into_words=True, padding=True, return_tensors="pt"
    )
    with pytest.raises(
        ValueError, match=r"heads\[0\] are of 2 words, but 3 were read .*Pass the words .* `word_ids`.*encode_words"
    ):
        model(**encoded, heads=torch.tensor([[2, 0, -100, -100], [4, 4, 4, 0]]))
    word_ids = torch.tensor([[-1, 0, 1, 1, -1, -1], [-1, 0, 1, 2, 3, -1]])
    assert model(**encoded, heads=torch.tensor([[2, 0, -100, -100], [4, 4, 4, 0]]), word_ids=word_ids).loss.isfinite()


@pytest.mark.parametrize(
    ("heads", "wrong"),
    [
        ([2, 0, 2], False),
        ([2, 0, 2, -100], False),
        ([-100] * 3, False),
        ([-100], False),
        ([-100, 0, -100], False),  # known in part
        ([2, -100, 2], False),
        ([2, 0, -100], True),
        ([0, -100, -100], True),
        ([2, 0], True),
        ([-100, 0], True),
        ([2, 0, 2, 2], True),
        ([-100, 0, -100, 2], True),
    ],
)
def test_which_heads_are_of_other_words(heads, wrong):
    word_ids = torch.tensor([[-1, 0, 0, -2, 1, 2, -1]])
    if wrong:
        with pytest.raises(ValueError, match=r"heads\[0\] are of \d words, but 3 were read off its tokens"):
            check_heads(word_ids, torch.tensor([heads]))
    else:
        check_heads(word_ids, torch.tensor([heads]))


NAMES = {0: "O", 1: "B-LOC", 2: "I-LOC"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-100, 1, -100, -100, 0, 2, -100], None),
        ([-100, 1, 1, -100, 0, 2, -100], None),  # at all tokens of a word
        ([-100, 1, 2, -100, 0, 2, -100], None),  # the same of a span
        ([-100, 2, 1, -100, 0, 2, -100], "token 2 has a label and opens no word"),
        ([-100] * 7, None),
        ([-100, 1, 0, -100, 0, 2, -100], "token 2 has a label and opens no word"),
        ([-100, 1, -100, 1, 0, 2, -100], "token 3 has a label and opens no word"),
        ([-100, 1, -100, -100, 0, 2, 2], "token 6 has a label and opens no word"),
        ([-100, 1, -100, -100, 0, -100, -100], "token 5 opens a word and has no label"),
        ([-100, -100, 1, -100, 0, 2, -100], "token 1 opens a word and has no label"),
    ],
)
def test_which_token_labels_are_of_other_words(labels, message):
    word_ids = torch.tensor([[-1, 0, 0, -2, 1, 2, -1]])
    if message is None:
        check_token_labels(word_ids, torch.tensor([labels]), NAMES)
    else:
        with pytest.raises(ValueError, match=message):
            check_token_labels(word_ids, torch.tensor([labels]), NAMES)


@pytest.fixture(scope="module")
def treebank(data_dir):
    """Sentences of the English Web Treebank, each a list of words and heads."""
    with gzip.open(data_dir / "ud-ewt" / "en_ewt-ud-dev.conllu.gz", "rt", encoding="utf-8") as file:
        lines = [line.split("\t") for line in itertools.islice(file, 9000)]
    sentences: list[list] = [[]]
    for fields in lines:
        if fields[0] == "1" and sentences[-1]:
            sentences.append([])
        if fields[0].isdigit():
            sentences[-1].append((fields[1], int(fields[6])))
    return [tuple(zip(*sentence, strict=True)) for sentence in sentences[:300]]


def test_a_treebank_whose_words_are_forgotten_is_an_error_in_just_those_sentences_where_they_differ(treebank):
    """With the collators of transformers, and with the one that keeps the words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    trainer = trainers.WordPieceTrainer(vocab_size=2000, special_tokens=[*special.values()], show_progress=False)
    tokenizer.train_from_iterator([" ".join(words) for words, _ in treebank], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=0, num_attention_heads=1)
    base = LatentTreeModel.from_encoder(BertModel(config), tokenizer, estimator="marginals")
    collator, stock = DataCollatorForLatentTrees(tokenizer), DataCollatorForTokenClassification(tokenizer)
    different, tags = 0, {tag: f"{tag}" for tag in range(7)}
    for words, heads in treebank:
        row = encode_words(tokenizer, words, heads, labels=[place % 7 for place in range(len(words))])
        batch = collator([row])
        batch.pop("word_ids")
        found = base.find_words(batch["input_ids"], batch["attention_mask"])
        differs = int(found.max()) + 1 != len(words)
        different += differs
        labels = stock([{name: row[name] for name in ("input_ids", "attention_mask", "labels")}])["labels"]
        for check, own in ((check_heads, (batch["heads"],)), (check_token_labels, (labels, tags))):
            try:
                check(found, *own)
            except ValueError:
                assert differs, words
            else:
                assert not differs, words
    assert different > 90
