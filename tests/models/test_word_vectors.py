"""Files of word vectors, as they are found: each is read rightly, or the line that is wrong is named."""

import gzip
import struct
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent import BiLstmModel
from hf_latent.models.bilstm import read_word_vectors

LINES = "the 0.1 0.2 0.3\nfilm 1 2 3\n"
WORDS, VECTORS = ["the", "film"], torch.tensor([[0.1, 0.2, 0.3], [1, 2, 3]])


@pytest.fixture
def file(tmp_path):
    def write(content: str | bytes, name: str = "v.txt"):
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        "2 3\n" + LINES,
        "2\t3 \n" + LINES,
        "\ufeff" + LINES,
        "\ufeff2 3\n" + LINES,
        LINES.replace("\n", "\r\n"),
        LINES.rstrip("\n"),
        LINES.replace(" ", "\t"),
        LINES.replace(" ", "   "),
        LINES.replace(" ", "\t", 1),
        LINES.replace("\n", " \n"),  # as fastText writes them
        LINES.replace("film", "  film"),
        LINES + "film 7 8 9\n",  # a word that comes twice
        LINES.replace(" 1 2 3", " 1e0 +2. .3E1"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_all_that_is_the_same(file, content, packed):
    path = file(gzip.compress(content.encode()) if packed else content, "v.txt" if packed else "v.gz")  # whatever the name says
    words, vectors = read_word_vectors(path)
    assert words == WORDS
    torch.testing.assert_close(vectors, VECTORS)


def test_words_of_all_kinds(file):
    words = [". . .", "at name@domain.com", "a\u2028b", "\x85", "a\u00a0b", "\ufeffthe", "2", "1e5", "nan", "می\u200cخواهم"]
    lines = "".join(f"{word} 1 {place} 3\n" for place, word in enumerate(words))
    assert read_word_vectors(file(lines))[0] == words
    assert read_word_vectors(file(f"{len(words)} 3\n{lines}"))[0] == words


@pytest.mark.parametrize(
    ("content", "number", "message"),
    [
        ("the 0.5\ngood 1 2 3\nbad 4 5 6\n", 1, "a word and 3 finite numbers"),  # the first line is the one cut off
        ("the 0.5\ngood 1 2 3\n", 1, "a word and 3"),
        ("good 1 2 3\nthe 0.5\n", 2, "a word and 3"),
        ("a 1 2 3\nb 1 2 3 4\nc 1 2 3\n", 2, "a word and 3"),
        ("a 1 2 3\nb 1 2 3\nx 5 y 1 2 3\n", 3, "a word and 3"),
        ("a 1 2 3\n1 2 3\n", 2, "a word and 3"),
        ("a 1 2 3\nb 1 2 1e39\n", 2, "a word and 3"),
        ("a 1 2 3\nb 1 2 inf\n", 2, "a word and 3"),
        ("a 1 2 3\nb 1 nan 2\n", 2, "a word and 3"),
        ("a 1 2 3\nb 1 2 1_0\n", 2, "a word and 3"),
        ("a 1 2 3\nb 1 2 \u0661\n", 2, "a word and 3"),
        ("a 1 2 3\nb 1 2 0,5\n", 2, "a word and 3"),
        ("a 1 2 3\n\nb 1 2 3\n", 2, "a word and 3"),
        ("a 1 2 3\rb 1 2 3\r", 1, "a word and 3"),
        ("no vectors here\n", 1, "a word and 1"),
        (b"a 1 2 3\nb\xff 1 2 3\n", 2, r"in UTF-8 .*b\\\\xff 1 2 3"),
        ("2 3\nthe 1 2\nfilm 3 4\n", 2, "a word and 3"),
        ("2 2\nthe 1 2 3\nfilm 3 4 5\n", 2, "a word and 2"),
        ("3 3\n" + LINES, 1, "says that 3 words follow, and 2 lines do"),
        ("1 3\n" + LINES, 1, "says that 1 words follow, and 2 lines do"),
        ("2 3\n", 1, "says that 2 words follow, and 0 lines do"),
        ("2 3\n".encode("utf-16"), 1, "in UTF-8"),
        (b"2 3\n" + b"the " + struct.pack("3f", 0.1, 0.2, 0.3) + b"\nfilm " + struct.pack("3f", 1, 2, 3), 2, "binary files"),
    ],
)
def test_the_line_that_is_wrong_is_named(file, content, number, message):
    with pytest.raises(ValueError, match=rf"(?s)v\.txt, line {number}: .*{message}"):
        read_word_vectors(file(content))


def test_lines_that_are_wrong_can_be_passed_over(file):
    content = b"\xff 1 2 3\n" + LINES.encode() + b"b 1 2\n\n" + b"c 4 5 6\n"
    with pytest.warns(UserWarning, match=r"v\.txt: 3 bad lines were passed over, of which the first is line 1: ") as caught:
        words, vectors = read_word_vectors(file(content), skip_bad_lines=True)
    assert len(caught) == 1
    assert words == [*WORDS, "c"]
    assert vectors.shape == (3, 3)
    with pytest.warns(UserWarning, match="1 bad lines .* line 1: this header says that 9 words follow"):
        assert read_word_vectors(file("9 3\n" + LINES), skip_bad_lines=True)[0] == WORDS
    with pytest.warns(UserWarning, match="3 bad lines"), pytest.raises(ValueError, match="no line of a word and its numbers"):
        read_word_vectors(file("a\nb\nc\n"), skip_bad_lines=True)
    with pytest.warns(UserWarning, match="1 bad lines"):
        assert len(BiLstmModel.from_word_vectors(file("b 1 2\n" + LINES), hidden_size=2, skip_bad_lines=True)[1]) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(LINES.encode() * 9999)[:-20], "after line [0-9]+: the compressed data is damaged or cut off"),
        (b"\x1f\x8bno gzip at all", "after line 0: the compressed data is damaged"),
        (b"PK\x03\x04...", "is a zip archive and no word-vector file: unpack it first"),
        (b"", "holds no line"),
        (b"\xef\xbb\xbf", "holds no line|line 1"),
        (b"x" * (2**24 + 1), "line 1: longer than 16 MiB"),
    ],
    ids=range(6),
)
def test_files_that_are_none(file, content, message):
    with pytest.raises(ValueError, match=rf"v\.txt.*{message}"):
        read_word_vectors(file(content))
    with pytest.raises(FileNotFoundError, match="which is a folder"):
        read_word_vectors(file(b"").parent)


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\n\r \t\x0b\x0c\x1c\x1d\x1e\x1f")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(letters, min_size=1), st.tuples(numbers, numbers), min_size=1), st.booleans())
def test_what_is_written_is_read(tmp_path_factory, entries, header):
    path = tmp_path_factory.getbasetemp() / "v.vec"
    lines = [f"{word} {' '.join(map(repr, vector))}\n" for word, vector in entries.items()]
    path.write_text((f"{len(entries)} 2\n" if header else "\ufeff") + "".join(lines), encoding="utf-8", newline="")
    words, vectors = read_word_vectors(path)
    assert words == list(entries)
    torch.testing.assert_close(vectors, torch.tensor(list(entries.values())), rtol=0, atol=0)


def rows_of(path, **options) -> dict[str, list[float]]:
    model, tokenizer = BiLstmModel.from_word_vectors(path, hidden_size=2, **options)
    assert model.embeddings.weight.shape[0] == len(tokenizer)
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    return {word: model.embeddings.weight[row].tolist() for word, row in tokenizer.get_vocab().items()}


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("special", ["", "[UNK]", "[PAD]", "[SEP]", "[CLS]", "[SEP] [PAD] [UNK]"])
@pytest.mark.parametrize("place", [0, 2, 3])
def test_special_tokens_in_the_file_shift_nothing(file, special, pairs, place):
    lines = ["the 1 1", "film 2 2", "good 3 3"]
    lines[place:place] = [f"{token} 9 9" for token in special.split()]
    found = rows_of(file("\n".join(lines)), pairs=pairs)
    assert (found["the"], found["film"], found["good"]) == ([1, 1], [2, 2], [3, 3])
    assert found["[PAD]"] == [0, 0]
    if special in ("", "[PAD]"):
        assert found["[UNK]"] == [2, 2]
    if "[UNK]" in special:
        assert found["[UNK]"] == [9, 9]
    if "[SEP]" in special:
        assert found["[SEP]"] == [9, 9]


def test_special_tokens_with_a_vocabulary(file):
    path = file("the 1 1\n[UNK] 9 9\n[SEP] 8 8\n[PAD] 7 7\n")
    found = rows_of(path, vocabulary=["the"], pairs=True)
    assert found == {"[PAD]": [0, 0], "[UNK]": [9, 9], "[SEP]": [8, 8], "the": [1, 1]}
    assert "[SEP]" not in rows_of(path, vocabulary=["the"])
    with pytest.raises(ValueError, match=r"no vectors but those of \[UNK\]"):
        BiLstmModel.from_word_vectors(path, ["film"])


CASED = "the 1 1\nUS 2 2\nus 3 3\nFilm 4 4\n"


def ids(path, text: str, **options) -> list[list[float]]:
    model, tokenizer = BiLstmModel.from_word_vectors(path, hidden_size=2, **options)
    return model.embeddings.weight[tokenizer(text)["input_ids"]].tolist()


@pytest.mark.filterwarnings("error")
def test_case_is_that_of_the_file(file):
    unknown = [2.5, 2.5]
    assert ids(file(CASED), "The US us Film") == [unknown, [2, 2], [3, 3], [4, 4]]
    assert ids(file(CASED), "the US us Film", vocabulary=["US", "us", "Film", "The"]) == [[1, 1], [2, 2], [3, 3], [4, 4]]
    lower = CASED.replace("US", "it").lower()
    assert ids(file(lower), "The US us Film") == [[1, 1], [3, 3], [3, 3], [4, 4]]
    assert ids(file(lower), "The US us Film", vocabulary=["The", "US", "us", "Film"])[::3] == [[1, 1], [4, 4]]
    # Nothing with capitals is kept, so that nothing is lost by lower-casing.
    assert ids(file(CASED), "THE us", vocabulary=["the", "us"]) == [[1, 1], [3, 3]]
    assert ids(file(CASED), "us Us", vocabulary=["Us"], lowercase=True) == [[3, 3], [3, 3]]
    assert ids(file(CASED), "US us", vocabulary=["US"], lowercase=False) == [[2, 2], [2, 2]]  # the second is unknown


def test_words_that_are_lost_in_lower_case_are_counted(file):
    with pytest.warns(UserWarning, match=r"2 of the 4 words of .*v\.txt have capitals \(.US.*lowercase=False"):
        assert ids(file(CASED), "US Film", lowercase=True) == [[3, 3], [2.5, 2.5]]
    many = "".join(f"word{place} 1 1\n" for place in range(300))
    with pytest.warns(UserWarning, match="1 of the 301 words"):  # a slip, and no file with capitals
        assert ids(file(many + "É 2 2\n"), "WORD7") == [[1, 1]]


def test_real_vectors_are_read_fast(data_dir):
    started = time.process_time()
    words, vectors = read_word_vectors(data_dir / "minilm-words.100d.txt.gz")
    assert vectors.shape == (len(words), 100) == (44152, 100)
    assert words[:3] == ["the", ",", "."]
    assert time.process_time() - started < 10
