"""Files that become datasets, and list operations with their trees."""

import gzip

import pytest
import torch

from hf_latent.data import listops, load_conllu, load_listops, load_sentiment_trees
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.trees import Tree, write_conllu


def test_list_operations():
    found = listops.read(["[MAX", "2", "[SM", "7", "4", "]", "[MED", "1", "9", "5", "]", "0", "]"])
    assert found.answer == 5
    assert found.words == ("[MAX", "2", "[SM", "7", "4", "[MED", "1", "9", "5", "0")
    assert found.heads == (0, 1, 1, 3, 3, 1, 6, 6, 6, 1)
    assert listops.read(["7"]).answer == 7
    assert listops.read(["[FIRST", "3", "[LAST", "1", "4", "]", "]"]).answer == 3
    for wrong in ("[MAX 2", "]", "[MAX ]", "2 3", "[MAX 2 ] 3", "[MAX [MIN ] ]", "[ADD 1 2 ]"):
        with pytest.raises(ValueError, match="Not an expression"):
            listops.read(wrong.split())


def test_generated_expressions():
    found = listops.generate(500, longest=20, seed=1)
    assert found == listops.generate(500, longest=20, seed=1)
    assert len({one.tokens for one in found}) == 500
    assert max(len(one.tokens) for one in found) <= 20
    for one in found:
        assert is_tree(torch.tensor([one.heads]), projective=True, single_root=True)
        assert 0 <= one.answer <= 9


def test_expressions_of_a_given_shape():
    found = listops.generate(50, longest=40, shortest=21, depth=5, least_depth=5, operands=(3, 6), seed=1)
    for one in found:
        assert 21 <= len(one.tokens) <= 40
        assert max(Tree(one.words, one.heads).depths) == 6  # five lists, and what the innermost has in it
        operands = [one.heads.count(place) for place, word in enumerate(one.words, start=1) if word in listops.OPERATORS]
        assert min(operands) >= 3
        assert max(operands) <= 6
    for wrong, name in (
        ({"shortest": 30}, "shortest"),
        ({"least_depth": 4}, "least_depth"),
        ({"operands": (4, 2)}, "operands"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            listops.generate(5, longest=20, seed=1, **wrong)


def test_real_list_operations(data_dir):
    found = listops.read_file(data_dir / "listops" / "listops.test_d5f.tsv.gz")  # checks each answer
    assert len(found) == 10_000


def test_conllu(tmp_path):
    labelled = Tree(("a", "good", "film"), (3, 3, 0), relations=("det", "amod", "root"))
    write_conllu([labelled, Tree(("films",), (0,))], tmp_path / "trees.conllu.gz")
    assert load_conllu(tmp_path / "trees.conllu.gz").to_dict() == {
        "words": [["a", "good", "film"], ["films"]],
        "heads": [[3, 3, 0], [0]],
        "relations": [["det", "amod", "root"], ["root"]],
    }
    with pytest.raises(FileNotFoundError, match="No CoNLL-U file"):
        load_conllu(tmp_path / "nothing.conllu")


def test_listops(tmp_path):
    with gzip.open(tmp_path / "some.tsv.gz", "wt") as file:
        file.write("7\t[MAX 2 [MIN 7 9 ] ]\n3\t( ( ( [SM 1 ) 2 ) ] )\n")
    found = load_listops(tmp_path / "some.tsv.gz")
    assert found[0] == {
        "tokens": ["[MAX", "2", "[MIN", "7", "9", "]", "]"],
        "words": ["[MAX", "2", "[MIN", "7", "9"],
        "heads": [0, 1, 1, 3, 3],
        "label": 7,
    }
    assert found["label"] == [7, 3]
    (tmp_path / "wrong.tsv").write_text("7\t[MAX 2 ]\n")
    with pytest.raises(ValueError, match=r"wrong.tsv, line 1: the answer to '\[MAX 2 \]' is not 7"):
        load_listops(tmp_path / "wrong.tsv")
    (tmp_path / "wrong.tsv").write_text("7\t[MAX 7 ]\n7\n")
    with pytest.raises(ValueError, match=r"wrong.tsv, line 2: Not an expression"):
        load_listops(tmp_path / "wrong.tsv")
    with pytest.raises(FileNotFoundError, match="No ListOps file"):
        load_listops(tmp_path / "nothing.tsv")


SENTIMENT = "(3 (2 A) (3 (3 fine) (2 (2 film) (2 -LRB-))))\n\n(2 (2 So) (2 .))\n(0 (1 Bad) (2 film))\n"


def test_sentiment_trees(tmp_path):
    (tmp_path / "train.txt").write_text(SENTIMENT)
    found = load_sentiment_trees(tmp_path / "train.txt")
    assert found.to_dict() == {"text": ["A fine film (", "Bad film"], "label": [1, 0]}
    assert load_sentiment_trees(tmp_path / "train.txt", binary=False)["label"] == [3, 2, 0]
    phrases = load_sentiment_trees(tmp_path / "train.txt", binary=False, phrases=True)
    assert len(phrases) == 7 + 3 + 3
    assert phrases[2] == {"text": "fine film (", "label": 3}
    assert {"text": "Bad", "label": 1} in phrases.to_list()


WRONG_LABELS = ["(34 a)", "(01 a)", "(01234 a)", "(5 a)", "(-1 a)", "(\u00b2 a)", "(\u0661 a)", "( a)", "(3", "((3 a))", "(3)"]


@pytest.mark.parametrize(
    "line", ["good", "(3 good", "(7 good)", "(3 (2 a) (2 b)) c", "(3 )", "(3 a))", "(3 a) (2 b)", "3 a", *WRONG_LABELS]
)
def test_lines_that_are_no_sentiment_trees(tmp_path, line):
    (tmp_path / "train.txt").write_text(f"(3 (2 a) (2 b))\n{line}\n")
    with pytest.raises(ValueError, match=r"train.txt, line 2: expected a tree such as"):
        load_sentiment_trees(tmp_path / "train.txt")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("1\\/2 and\\/or \\*\\*\\*", "1/2 and/or ***"),
        ("a\u2028b c\x85d e\u00a0f \x0b", "a\u2028b c\x85d e\u00a0f \x0b"),
        ("-LRB- -RRB- -LSB- -RSB- -LCB- -RCB-", "( ) [ ] { }"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\t a  b \t", "a b"),
    ],
)
def test_words_of_sentiment_trees(tmp_path, words, text):
    (tmp_path / "train.txt").write_text(f"(3 {words})\r\n", encoding="utf-8", newline="")
    assert load_sentiment_trees(tmp_path / "train.txt")["text"] == [text]


def test_labels_of_single_words(tmp_path):
    """Those of the innermost phrases; in phrases of a sentence, those of their words."""
    (tmp_path / "train.txt").write_text("(3 (2 (4 Good)) (2 (2 (1 bad) (2 films)) (2 .)))\n(2 no)\n")
    found = load_sentiment_trees(tmp_path / "train.txt", words=True)
    assert found["words"] == [["Good", "bad", "films", "."]]
    assert found["word_labels"] == [[4, 1, 2, 2]]
    phrases = load_sentiment_trees(tmp_path / "train.txt", binary=False, phrases=True, words=True)
    assert phrases["words"][1:3] == [["Good"], ["Good"]]
    assert phrases["word_labels"][3] == [1, 2, 2]
    assert all(" ".join(own) == text for own, text in zip(phrases["words"], phrases["text"], strict=True))


def test_sentiment_trees_that_are_all_neutral(tmp_path):
    (tmp_path / "train.txt").write_text("(2 a)\n")
    with pytest.raises(ValueError, match="no sentence in it that is not neutral"):
        load_sentiment_trees(tmp_path / "train.txt")


def test_trees_of_great_depth(tmp_path):
    """A hundred thousand levels, each with a word of its own."""
    levels = 100_000
    (tmp_path / "train.txt").write_text("(3 a " * levels + ")" * levels + "\n")
    found = load_sentiment_trees(tmp_path / "train.txt")
    assert len(found) == 1
    assert found["text"][0] == "a " * (levels - 1) + "a"
    (tmp_path / "deep.tsv").write_text("7\t" + "[MAX 7 " * levels + "] " * levels + "\n")
    (expression,) = listops.read_file(tmp_path / "deep.tsv")
    assert expression.answer == 7
    assert expression.heads[-1] == 2 * levels - 1
    with pytest.raises(ValueError, match="a list is not closed") as error:
        listops.read(["[MAX"] * levels)
    assert len(str(error.value)) < 400


def test_real_sentiment_trees(data_dir):
    found = load_sentiment_trees(data_dir / "sst-trees" / "dev.txt.gz", binary=False)
    assert len(found) == 1101
    assert not any(sign in text for text in found["text"] for sign in ("\\", "-LRB-"))


@pytest.mark.parametrize("depth", [1, 10_000])
def test_generating_ends(depth):
    """There are six operators on a hundred pairs of digits, and nothing else in four tokens."""
    assert len(listops.generate(600, longest=4, seed=0, depth=depth)) == 600
    with pytest.raises(ValueError, match=r"Found 600 different expressions.*`count` is 601"):
        listops.generate(601, longest=4, seed=0, depth=depth)
    assert max(len(one.tokens) for one in listops.generate(20, longest=100, seed=0, depth=depth)) <= 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "`count` must be an integer, 0 or more, got -1"),
        ({"count": 2.5}, "`count` must be an integer, 0 or more, got 2.5"),
        ({"longest": 3}, "`longest` must be at least 4, .* got 3"),
        ({"depth": 0}, "`depth` at least 1, got 20 and 0"),
        ({"operators": ()}, "`operators` must be some of"),
        ({"operators": ("[ADD",)}, "`operators` must be some of"),
    ],
)
def test_what_cannot_be_generated(options, message):
    with pytest.raises(ValueError, match=message):
        listops.generate(**{"count": 1, "longest": 20, "seed": 0, **options})
    assert listops.generate(0, longest=4, seed=0) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("77\t[MAX 7 1 ]", r"is not '77'"),
        ("\u0667\t[MAX 7 1 ]", r"the answer to"),
        ("[MAX 7 1 ]", r"Not an expression: '' \(a list"),
        ("7\t() [MAX 7 1 ]", r"token 1, '\(\)'"),
        ("7\t[MAX 7 \u00b2 ]", r"token 3"),
        ("7\t[MAX 7 10 ]", r"token 3, '10'"),
        ("7\t" + "x" * 10**6, r"token 1, 'xxx"),
    ],
)
def test_lines_that_are_no_list_operations(tmp_path, line, message):
    (tmp_path / "a.tsv").write_text(f"7\t7\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"a\.tsv, line 2: .*{message}") as error:
        load_listops(tmp_path / "a.tsv")
    assert len(str(error.value)) < 500
