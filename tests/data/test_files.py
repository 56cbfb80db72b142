"""Files are read a line at a time and named where they are wrong; they are written whole or not at all."""

import gzip
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent.data import load_conllu, load_listops, load_sentiment_trees
from hf_latent.files import read_text, write_file
from hf_latent.models.bilstm import read_word_vectors
from hf_latent.trees import Tree, read_conllu, write_conllu

ROW = "1\tcafé\t_\t_\t_\t_\t0\troot\t_\t_\n\n"
# Each reader, a line that it reads, and what it finds there.
READERS = {
    "CoNLL-U": (lambda path: load_conllu(path)["words"][:], ROW, [["café"]]),
    "sentiment": (lambda path: load_sentiment_trees(path)["text"][:], "(3 (2 un) (2 café))\n", ["un café"]),
    "ListOps": (lambda path: load_listops(path)["label"][:], "7\t[MAX 2 7 ]\n", [7]),
    "vectors": (lambda path: read_word_vectors(path)[0], "café 1 2\n", ["café"]),
}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.mark.parametrize("packed", [False, True])
def test_all_readers_take_what_is_common(reader, packed, tmp_path):
    read, line, found = reader
    for number, content in enumerate([line, "\ufeff" + line, line.replace("\n", "\r\n"), line.rstrip("\n")]):
        for name in (f"{number}.txt", f"{number}.gz"):  # what a file is, its first bytes tell
            (tmp_path / name).write_bytes(gzip.compress(content.encode()) if packed else content.encode())
            assert read(tmp_path / name) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.encode().replace(b"\n", b"\xe9\n"), r"line 1: .*(UTF-8|xe9)"),
        (lambda line: line.encode("utf-16"), r"line 1"),
        (lambda line: line.encode("utf-16-le"), r"line 1"),
        (lambda line: line.replace("\n", "\r").encode() * 2, r"line 1"),
        (lambda line: gzip.compress(line.encode() * 9999)[:-9], r"after line \d+: the compressed data is damaged or cut off"),
        (lambda line: gzip.compress(line.encode() * 99) + b"more", r"after line \d+: the compressed data is damaged"),
        (lambda line: b"\x1f\x8bno gzip", r"after line 0: the compressed data is damaged"),
        (lambda line: gzip.compress(b"#" * 2**25), r"line 1: longer than 16 MiB"),
        (lambda line: b"PK\x03\x04", r"is a zip archive"),
        (lambda line: b"", r"has no|holds no"),
        (lambda line: line.encode() + b"\xef\xbb\xbf\x00 \t\n", r"line [23]"),
    ],
)
def test_all_readers_name_what_is_wrong(reader, change, message, tmp_path):
    read, line, _ = reader
    (tmp_path / "f.txt").write_bytes(change(line))
    with pytest.raises(ValueError, match=rf"(?s)f\.txt.*{message}") as error:
        read(tmp_path / "f.txt")
    assert not isinstance(error.value, UnicodeError)
    assert len(str(error.value)) < 1000
    assert str(error.value).isprintable()


def test_all_readers_name_what_is_no_file(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match="which is a folder"):
        reader[0](tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No .* at '.*nothing'\."):
        reader[0](tmp_path / "nothing")


def test_lines_end_where_they_end(tmp_path):
    (tmp_path / "f").write_bytes("a\u2028b\x85c\x0bd\x0ce\x1cf\rg\r\n\r\n\nh\r".encode())
    assert list(read_text(tmp_path / "f", "file")) == [(1, "a\u2028b\x85c\x0bd\x0ce\x1cf\rg"), (2, ""), (3, ""), (4, "h")]


def test_conllu_is_read_as_a_stream(tmp_path):
    """Of two hundred thousand lines of comments, packed into a few hundred bytes, no more than one is held."""
    with gzip.open(tmp_path / "a.conllu.gz", "wb") as file:
        file.write(b"#\n" * 200_000 + ROW.encode())
    tracemalloc.start()
    try:
        assert len(read_conllu(tmp_path / "a.conllu.gz")) == 1
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


sentences = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), min_size=1), min_size=1, max_size=5
)


@settings(max_examples=50, deadline=None)
@given(st.lists(sentences, min_size=1, max_size=3), st.booleans())
def test_conllu_of_any_words(tmp_path_factory, corpus, packed):
    path = tmp_path_factory.getbasetemp() / ("any.conllu.gz" if packed else "any.conllu")
    trees = [Tree(words, range(len(words))) for words in corpus]
    write_conllu(trees, path)
    assert [(tree.words, tree.heads) for tree in read_conllu(path)] == [(tree.words, tree.heads) for tree in trees]


@pytest.mark.parametrize("head", ["9" * 5000, "10000000000", "-1", "+1", "0x1", "1.0", "\u0661", "\u00b2", "_", "", "2"])
def test_heads_that_are_none(tmp_path, head):
    (tmp_path / "a.conllu").write_text(ROW.replace("\t0\t", f"\t{head}\t"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.conllu, sentence 1, line 1: the head of word 1 must be"):
        read_conllu(tmp_path / "a.conllu")


def test_the_line_of_a_cycle(tmp_path):
    (tmp_path / "a.conllu").write_text(f"{ROW}# sent_id = x7\n{ROW.replace('0', '1')}# more\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"sentence 2 \(x7\), line 4: .* form a tree.* word 1 from 1 hangs in a cycle"):
        read_conllu(tmp_path / "a.conllu")


@pytest.mark.parametrize("word", ["\ud83d", "a\udc00b", "a\tb", "a\nb", "a\rb"])
@pytest.mark.parametrize("name", ["a.conllu", "a.conllu.gz"])
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, word, name):
    path = tmp_path / name
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"trees\[1\] cannot be written as CoNLL-U") as error:
        write_conllu([Tree(("fine",), (0,)), Tree((word,), (0,))], path)
    assert str(error.value).isprintable()
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == [name]


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_file(path, "é\r\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    path.chmod(0o640)
    write_file(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(ValueError, match=r"a\.txt cannot be written: its text has half of a surrogate pair at 1"):
        write_file(path, "a\ud800")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, "more")
    assert path.read_bytes() == b"\x00"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_places_that_are_no_plain_files(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "link").symlink_to("a.txt")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "new"
    write_file(os.devnull, "gone")
    assert not os.path.isfile(os.devnull)
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent.* to write 'a\.txt' into"):
        write_file(tmp_path / "absent" / "a.txt", "new")
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path, "new")
    name = "x" * 251 + ".txt"  # as long as names can be
    write_file(tmp_path / name, "new")
    assert (tmp_path / name).read_text() == "new"


@pytest.fixture
def example(monkeypatch):
    """What reads the files of the classification scripts."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    import classification

    return classification


TABLE = [{"text": "a café", "label": "1"}, {"text": 'a "bad" film', "label": "0"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", 'text\tlabel\na café\t1\na "bad" film\t0\n'),
        ("a.txt", 'a café\t1\n\na "bad" film\t0'),
        ("a.csv", 'text,label\na café,1\n"a ""bad"" film",0\n'),
        ("a.json", '{"text": "a café", "label": "1"}\n{"text": "a \\"bad\\" film", "label": "0"}\n'),
    ],
)
def test_tables_of_examples(example, tmp_path, name, content):
    for number, encoded in enumerate([content, "\ufeff" + content, content.replace("\n", "\r\n")]):
        (tmp_path / f"{number}{name}").write_bytes(encoded.encode())
        assert example.read_file(tmp_path / f"{number}{name}", ["text", "label"]).to_list() == TABLE
    if not name.endswith("json"):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
        assert example.read_file(tmp_path / name, ["text", "label"]).to_list() == TABLE


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"caf\xe9\t1\n", r"a\.tsv, line 1: byte 4 of the line \(0xe9\) is not UTF-8"),
        ("a.csv", b'a,1\n"never closed,0\nb,1\n', r"a\.csv, line 3: unexpected end of data"),
        ("a.csv", b'a,1\n"closed" twice,0\n', r"a\.csv, line 2: "),
        ("a.csv", b"x" * 200_000 + b",1\n", r"a\.csv, line 1: field larger than"),
        ("a.tsv", b"a\t1\n" + b"x" * 10**6, r"a\.tsv, entry 2: expected 2 fields"),
        ("a.json", b"{not json\n", r"a\.json is not JSON with an object a line"),
        ("a.tsv", b"\n \n\t\n", r"a\.tsv is empty"),
        ("a.tsv", gzip.compress(b"a\t1\n" * 999)[:-9], r"a\.tsv, after line \d+: the compressed data is damaged"),
    ],
    ids=range(8),
)
def test_tables_that_cannot_be_read(example, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=message) as error:
        example.read_file(tmp_path / name, ["text", "label"])
    assert len(str(error.value)) < 1000
    with pytest.raises(SystemExit, match="No file at"):
        example.read_file(tmp_path / "absent.tsv", ["text", "label"])
