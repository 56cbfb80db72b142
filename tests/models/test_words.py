"""Words out of sub-words, and word vectors out of files."""

import gzip

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from tokenizers import decoders as token_decoders
from transformers import PreTrainedTokenizerFast

from hf_latent import BiLstmConfig, BiLstmModel
from hf_latent.layers import pool_words
from hf_latent.models.bilstm import read_word_vectors, word_tokenizer
from hf_latent.models.words.word_boundaries import token_kinds, word_ids_from_tokens

CORPUS = [
    "it's a charming and often affecting journey , isn't it ?",
    "unflinchingly bleak and desperate -- 100 % of it ...",
    "allows us to hope that nolan is poised to embark a major career as a commercial yet inventive filmmaker .",
    "the acting , costumes , music ; cinematography and sound are all astounding (given the production's austere locales) .",
]


def test_first_last_and_mean_pooling():
    tokens = torch.arange(12.0).view(2, 6, 1)
    word_ids = torch.tensor([[-1, 0, 0, 1, -1, -1], [-1, -1, 0, 1, 2, 2]])
    first, lengths = pool_words(tokens, word_ids, "first")
    assert lengths.tolist() == [2, 3]
    assert first[:, :, 0].tolist() == [[1, 3, 0], [8, 9, 10]]
    last, lengths = pool_words(tokens, word_ids, "last")
    assert lengths.tolist() == [2, 3]
    assert last[:, :, 0].tolist() == [[2, 3, 0], [8, 9, 11]]
    mean, _ = pool_words(tokens, word_ids, "mean")
    assert mean[:, :, 0].tolist() == [[1.5, 3, 0], [8, 9, 10.5]]


def test_pooling_of_nothing():
    words, lengths = pool_words(torch.randn(2, 3, 4), torch.full((2, 3), -1))
    assert words.shape == (2, 0, 4)
    assert lengths.tolist() == [0, 0]


def test_pooling_errors():
    with pytest.raises(ValueError, match="`word_pooling` must be one of first, last, mean, got 'middle'"):
        pool_words(torch.randn(1, 2, 3), torch.zeros(1, 2).long(), "middle")
    with pytest.raises(ValueError, match=r"integers of shape \(1, 2\).*got a int64 tensor of shape \(1, 3\)"):
        pool_words(torch.randn(1, 2, 3), torch.zeros(1, 3).long())
    with pytest.raises(ValueError, match="has word 7 in a row of 2 tokens"):
        pool_words(torch.randn(1, 2, 3), torch.tensor([[0, 7]]))


# How Llama 3 and others split texts before byte-level BPE.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def trained_tokenizer(kind: str, texts: list[str] = CORPUS, size: int = 120) -> PreTrainedTokenizerFast:
    special = ["[UNK]", "[PAD]"]
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), token_decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="[UNK]", show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if kind == "byte-level, as Llama 3":
            split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
            pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pieces])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=200 + size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "byte-level"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_words_read_off_the_tokens_are_the_tokenizers_own(kind, side):
    tokenizer = trained_tokenizer(kind)
    tokenizer.padding_side = side
    batch = tokenizer(CORPUS, padding=True, return_tensors="pt")
    ours = word_ids_from_tokens(batch["input_ids"], batch["attention_mask"], token_kinds(tokenizer, len(tokenizer)))
    for row in range(len(CORPUS)):
        assert ours[row].tolist() == [-1 if word is None else word for word in batch.word_ids(row)], CORPUS[row]


@pytest.mark.parametrize(
    ("kind", "share"), [("wordpiece", 1.0), ("unigram", 1.0), ("byte-level", 1.0), ("byte-level, as Llama 3", 0.94)]
)
def test_words_of_real_sentences(data_dir, kind, share):
    """On SST-2. (As Llama 3 splits, a blank before a number is a word of its own; here, it belongs to the number.)"""
    train, dev = (
        [line.split("\t")[0] for line in (data_dir / "sst2" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()]
        for split in ("train", "dev")
    )
    tokenizer = trained_tokenizer(kind, train, size=4000)
    batch = tokenizer(dev, padding=True, return_tensors="pt")
    ours = word_ids_from_tokens(batch["input_ids"], batch["attention_mask"], token_kinds(tokenizer, len(tokenizer)))
    own = [[-1 if word is None else word for word in batch.word_ids(row)] for row in range(len(dev))]
    assert sum(one.tolist() == other for one, other in zip(ours, own, strict=True)) >= share * len(dev)


def test_characters_that_the_vocabulary_lacks_split_no_words():
    """Byte pieces of a character, and an unknown piece after a bare ▁, belong to the word around them."""
    for kind, texts in (("byte-level", ["naïve café", "Aé.é"]), ("unigram", ["日本 film", "it 3", "don\u2019t"])):
        tokenizer = trained_tokenizer(kind)
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        ours = word_ids_from_tokens(batch["input_ids"], batch["attention_mask"], token_kinds(tokenizer, len(tokenizer)))
        for row, text in enumerate(texts):
            assert ours[row].tolist() == [-1 if word is None else word for word in batch.word_ids(row)], text


def test_a_tokenizer_that_does_not_fit(wordpiece):
    with pytest.raises(ValueError, match="the encoder knows 5 tokens: it does not fit"):
        token_kinds(wordpiece, 5)


def test_a_tokenizer_without_word_marks():
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    with pytest.raises(ValueError, match=r"Cannot tell where words begin.*Pass `word_ids`"):
        token_kinds(PreTrainedTokenizerFast(tokenizer_object=tokenizer), 2)


VECTORS = "the 0.1 0.2 0.3\nfilm 1 2 3\n. . . 4 5 6\n"


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
def test_word_vectors_plain_and_gzipped(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(VECTORS.encode()) if name.endswith("gz") else VECTORS.encode())
    words, vectors = read_word_vectors(path)
    assert words == ["the", "film", ". . ."]  # GloVe's 840B file has words with spaces
    torch.testing.assert_close(vectors, torch.tensor([[0.1, 0.2, 0.3], [1, 2, 3], [4, 5, 6]]))
    assert read_word_vectors(path, {"film", "unknown"})[0] == ["film"]


def test_a_header_line_is_passed_over(tmp_path):
    path = tmp_path / "vectors.vec"
    path.write_text("3 3\n" + VECTORS)
    assert len(read_word_vectors(path)[0]) == 3


@pytest.mark.parametrize("line", ["film 1 2", "film 1 two 3", "film 1 nan 3", "", "1 2 3"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "vectors.txt"
    path.write_text(f"the 0.1 0.2 0.3\n{line}\n")
    with pytest.raises(ValueError, match=r"vectors.txt, line 2: expected a word and 3 finite numbers"):
        read_word_vectors(path)


def test_files_without_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="No word-vector file at"):
        read_word_vectors(tmp_path / "missing.txt")
    path = tmp_path / "vectors.txt"
    path.write_text("")
    with pytest.raises(ValueError, match="holds no line"):
        read_word_vectors(path)
    path.write_text(VECTORS)
    with pytest.raises(ValueError, match="none of the 1 words of `vocabulary`"):
        read_word_vectors(path, {"unknown"})


def test_bilstm_from_word_vectors(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("the 0.1 0.2 0.3\nfilm 1 2 3\n")
    model, tokenizer = BiLstmModel.from_word_vectors(path, hidden_size=8, freeze_embeddings=True)
    weights = model.embeddings.weight
    assert not weights.requires_grad
    assert tokenizer("The film zzz")["input_ids"] == [2, 3, tokenizer.unk_token_id]
    torch.testing.assert_close(weights[3], torch.tensor([1.0, 2, 3]))
    torch.testing.assert_close(weights[tokenizer.unk_token_id], torch.tensor([0.55, 1.1, 1.65]))
    assert (weights[tokenizer.pad_token_id] == 0).all()
    with pytest.raises(TypeError, match="`vocab_size` follows from the word vectors"):
        BiLstmModel.from_word_vectors(path, vocab_size=7)


def test_punctuation_is_split_on_request():
    assert word_tokenizer(["film", "!"], split_punctuation=True)("film!")["input_ids"] == [2, 3]
    assert word_tokenizer(["film", "!"])("film!")["input_ids"] == [1]


def test_bilstm_does_not_see_padding_or_other_sentences():
    """The paper's code fed a batch-first tensor to an LSTM that was not: words saw other sentences."""
    model = BiLstmModel(BiLstmConfig(vocab_size=9, embedding_size=4, hidden_size=6, num_hidden_layers=2)).eval()
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [0, 0, 0, 6, 7]])
    states = model(input_ids=ids).last_hidden_state
    alone = model(input_ids=ids[1:2, :2]).last_hidden_state[0]
    torch.testing.assert_close(states[1, :2], alone)
    torch.testing.assert_close(states[2, 3:], alone)
    assert (states[1, 2:] == 0).all()
    changed = ids.clone()
    changed[0, 0] = 8
    torch.testing.assert_close(model(input_ids=changed).last_hidden_state[1:], states[1:])


def test_bilstm_input_errors():
    model = BiLstmModel(BiLstmConfig(vocab_size=9, embedding_size=4, hidden_size=6))
    with pytest.raises(ValueError, match="either `input_ids` or `inputs_embeds`"):
        model()
    with pytest.raises(ValueError, match="`hidden_size` must be even"):
        BiLstmConfig(hidden_size=7)
