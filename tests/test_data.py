"""Files that become datasets, and list operations with their trees."""

import gzip

import pytest
import torch

from hf_latent.data import listops, load_conllu, load_listops, load_sentiment_trees
from hf_latent.inference.enumeration import is_tree
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


def test_real_list_operations(data_dir):
    found = listops.read_file(data_dir / "listops" / "listops.test_d5f.tsv.gz")  # checks each answer
    assert len(found) == 10_000


def test_conllu(tmp_path):
    write_conllu([Tree(("a", "good", "film"), (3, 3, 0)), Tree(("films",), (0,))], tmp_path / "trees.conllu.gz")
    found = load_conllu(tmp_path / "trees.conllu.gz")
    assert found.to_dict() == {"words": [["a", "good", "film"], ["films"]], "heads": [[3, 3, 0], [0]]}
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


@pytest.mark.parametrize("line", ["good", "(3 good", "(7 good)", "(3 (2 a) (2 b)) c", "(3 )", "(3 a))", "(3 a) (2 b)", "3 a"])
def test_lines_that_are_no_sentiment_trees(tmp_path, line):
    (tmp_path / "train.txt").write_text(f"(3 (2 a) (2 b))\n{line}\n")
    with pytest.raises(ValueError, match=r"train.txt, line 2: expected a tree such as"):
        load_sentiment_trees(tmp_path / "train.txt")
