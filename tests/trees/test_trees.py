"""Trees compared and counted, and in CoNLL-U."""

import gzip
import itertools
import time
import xml.etree.ElementTree as xml

import numpy as np
import pytest
import torch

from hf_latent import DependencyTree
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.trees import (
    Tree,
    attachment_score,
    baseline_trees,
    read_conllu,
    side_by_side,
    tree_agreement,
    tree_statistics,
    write_conllu,
)
from hf_latent.trees import heads as of_heads

FILM = Tree(("a", "good", "film", "that", "works"), (3, 3, 0, 5, 3))
CROSSED = Tree(("a", "b", "c", "d"), (3, 4, 0, 3))


def test_attachment_score():
    flat = Tree(FILM.words, (0, 0, 0, 0, 0))
    assert attachment_score([flat], [FILM]) == pytest.approx(1 / 5)
    assert attachment_score([FILM, flat], [FILM, FILM]) == pytest.approx(6 / 10)
    turned = Tree(FILM.words, (3, 3, 5, 5, 0))  # "works" heads "film": that arc counts without its direction
    assert attachment_score([turned], [FILM]) == pytest.approx(3 / 5)
    assert attachment_score([turned], [FILM], directed=False) == pytest.approx(4 / 5)
    with pytest.raises(ValueError, match="same words"):
        attachment_score([CROSSED], [FILM])
    with pytest.raises(ValueError, match="no words"):
        attachment_score([Tree((), ())], [Tree((), ())])


def test_agreement_of_runs():
    flat, turned = Tree(FILM.words, (0, 0, 0, 0, 0)), Tree(FILM.words, (3, 3, 5, 5, 0))
    assert tree_agreement([[FILM, CROSSED]] * 3) == 1
    assert tree_agreement([[FILM, CROSSED], [flat, CROSSED]]) == pytest.approx((1 + 4) / 9)
    assert tree_agreement([[FILM], [flat], [turned]]) == pytest.approx((1 / 5 + 3 / 5 + 1 / 5) / 3)
    for runs in ([], [[FILM]]):
        with pytest.raises(ValueError, match=f"the trees of two runs at least, got {len(runs)}"):
            tree_agreement(runs)
    with pytest.raises(ValueError, match="same words"):
        tree_agreement([[FILM], [FILM], [CROSSED]])


def test_shape_of_a_tree():
    assert FILM.is_projective
    assert not CROSSED.is_projective
    flat = [Tree(("a", "b", "c"), heads) for heads in ((0, 0, 0), (2, 0, 2))]
    assert all(tree.is_flat for tree in flat)
    assert not Tree(("a", "b", "c"), (0, 1, 0)).is_flat
    assert not FILM.is_flat


def test_statistics():
    found = tree_statistics([FILM, Tree(("a", "b"), (0, 0)), Tree((), ())])
    assert found == {
        "depth": 2.0,
        "roots": 1.5,
        "flat": 0.5,
        "chain": 0.0,
        "arc_length": pytest.approx((2 + 1 + 1 + 2) / 4),
        "to_the_left": 0.25,
        "projective": 1.0,
    }
    assert tree_statistics([CROSSED])["projective"] == 0
    assert tree_statistics([Tree(("a", "b", "c"), (0, 1, 2)), Tree(("a", "b", "c"), (2, 3, 0)), FILM])["chain"] == 2 / 3
    assert all(value != value for value in tree_statistics([]).values())


def test_baseline_trees():
    trees = baseline_trees([FILM, Tree(("a",), (0,)), Tree((), ())], seed=1)
    assert [tree.heads for tree in trees["right-branching"]] == [(0, 1, 2, 3, 4), (0,), ()]
    assert [tree.heads for tree in trees["left-branching"]] == [(2, 3, 4, 5, 0), (0,), ()]
    assert all(tree.is_flat for tree in trees["flat"])
    assert trees["random"] == baseline_trees([FILM, Tree(("a",), (0,)), Tree((), ())], seed=1)["random"]
    many = baseline_trees([Tree(("a", "b", "c"), (0, 0, 0))] * 300, structure=DependencyTree(projective=False))["random"]
    assert {tree.heads for tree in many} == {  # all sixteen trees of three words
        tuple(row.argmax(1).tolist()) for row in DependencyTree(projective=False).enumerate(3)
    }


@pytest.mark.parametrize("name", ["trees.conllu", "trees.conllu.gz"])
def test_conllu_there_and_back(tmp_path, name):
    write_conllu([FILM, CROSSED], tmp_path / name)
    found = read_conllu(tmp_path / name)
    assert [(tree.words, tree.heads) for tree in found] == [(tree.words, tree.heads) for tree in (FILM, CROSSED)]
    assert found[0].relations == ("dep", "dep", "root", "dep", "dep")
    write_conllu([Tree(("a",), (0,), (0.25,))], tmp_path / "soft.conllu")
    assert "Weight=0.2500" in (tmp_path / "soft.conllu").read_text()


def test_conllu_with_all_that_the_format_has(tmp_path):
    text = (
        "# text = don't go\n1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n1\tdo\t_\t_\t_\t_\t3\taux\t_\t_\n"
        "2\tn't\t_\t_\t_\t_\t3\tadvmod\t_\t_\n3\tgo\t_\t_\t_\t_\t0\troot\t_\t_\n3.1\tthere\t_\t_\t_\t_\t_\t_\t_\t_"
    )
    with gzip.open(tmp_path / "a.conllu.gz", "wt") as file:
        file.write(text)  # no empty line at the end
    assert read_conllu(tmp_path / "a.conllu.gz") == [Tree(("do", "n't", "go"), (3, 3, 0), relations=("aux", "advmod", "root"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1\ta\t_\t_\t_\t_\t2\tdep\t_\t_\n2\tb\t_\t_\t_\t_\t1\tdep\t_\t_\n",
            r"sentence 1, line 1: .* form a tree.*: word 1 from 2 from 1 hangs in a cycle",
        ),
        ("1\ta\t_\t_\t_\t_\t_\tdep\t_\t_\n", r"line 1: the head of word 1 must be a number between 0 \(ROOT\) and 1, got '_'"),
        ("2\ta\t_\t_\t_\t_\t0\tdep\t_\t_\n", r"line 1: expected word 1"),
        ("1 a 0\n", r"line 1"),
        ("1-2 a b c\n", r"line 1"),
        ("This is no well-known format.\n", r"line 1"),
        ("1\ta\t_\t_\t_\t_\t\u00b2\tdep\t_\t_\n", r"line 1"),
        ("1\ta\t_\t_\t_\t_\t0\tr\t_\t_\n\tb\t_\t_\t_\t_\t1\tr\t_\t_\n", r"line 2"),
        ("# nothing\n", r"has no sentence in it"),
    ],
)
def test_conllu_that_is_none(tmp_path, text, message):
    (tmp_path / "a.conllu").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_conllu(tmp_path / "a.conllu")
    with pytest.raises(FileNotFoundError, match=r"No CoNLL-U file at"):
        read_conllu(tmp_path / "b.conllu")


@pytest.mark.parametrize("tree", [Tree((), ()), Tree(("a\tb",), (0,)), Tree(("a\nb",), (0,))])
def test_conllu_has_no_place_for_some_trees(tmp_path, tree):
    with pytest.raises(ValueError, match=r"trees\[1\] cannot be written as CoNLL-U"):
        write_conllu([FILM, tree], tmp_path / "a.conllu")
    assert not (tmp_path / "a.conllu").exists()


def test_conllu_with_a_byte_order_mark(tmp_path):
    write_conllu([FILM], tmp_path / "a.conllu")
    (tmp_path / "b.conllu").write_text("\ufeff" + (tmp_path / "a.conllu").read_text(encoding="utf-8"), encoding="utf-8")
    assert read_conllu(tmp_path / "b.conllu") == read_conllu(tmp_path / "a.conllu")


def test_trees_that_make_no_sense():
    assert Tree(["a", "b"], [0, 1]) == Tree(("a", "b"), (0, 1))
    with pytest.raises(ValueError, match="`weights` must be one for each of the 2 words"):
        Tree(("a", "b"), (0, 1), (0.5,))
    with pytest.raises(TypeError, match="`heads` must be integers"):
        Tree(("a", "b"), (0.0, 1.0))
    with pytest.raises(ValueError, match="a tree for each sentence, got 1 and 2"):
        attachment_score([FILM], [FILM, FILM])
    xml.fromstring(Tree(("a\x0b",), (0,)).to_svg())


@pytest.mark.parametrize("n", [3, 4])
def test_different_trees_are_different_texts(n):
    words = tuple("abcd"[:n])
    heads = {tuple(row.argmax(1).tolist()) for row in DependencyTree(projective=False).enumerate(n)}
    assert len({Tree(words, one).to_text() for one in heads}) == len(heads) == (n + 1) ** (n - 1)


def test_gold_trees_of_english(data_dir):
    trees = read_conllu(data_dir / "ud-ewt" / "en_ewt-ud-dev.conllu.gz")
    assert len(trees) == 2001
    found = tree_statistics(trees)
    assert found["roots"] == 1
    assert found["projective"] == pytest.approx(0.984, abs=0.001)
    assert attachment_score(baseline_trees(trees)["flat"], trees) < 0.2


def test_a_picture_of_a_soft_tree():
    soft = Tree(("a", "film"), (2, 0), (0.75, 1.0), ((0, 0, 0.25),))
    drawing = soft.to_svg()
    assert ">.75<" in drawing
    assert ">.25<" in drawing
    assert ">root<" in drawing
    assert drawing.count("<path") == 3
    assert soft._repr_html_().startswith("<div")


def test_pictures_side_by_side():
    both = side_by_side([[FILM.to_svg(), FILM.to_svg()], [FILM.to_svg(), CROSSED.to_svg()]], ["<one>", "two"])
    root = xml.fromstring(both)
    pictures = [element for element in root if element.tag.endswith("svg")]
    assert len(pictures) == 4
    assert pictures[0].get("x") == pictures[2].get("x") != pictures[1].get("x")
    assert float(root.get("width")) > float(pictures[1].get("x")) + float(pictures[1].get("width"))
    assert float(root.get("height")) >= float(pictures[2].get("y")) + float(pictures[2].get("height"))
    with pytest.raises(ValueError, match="a picture for each of the 2 `titles`"):
        side_by_side([[FILM.to_svg()]], ["one", "two"])
    named = side_by_side([[FILM.to_svg()], [CROSSED.to_svg()]], [""], ["<first>", "second"])
    assert "&lt;first&gt;" in named
    assert named.index("&lt;first&gt;") < named.index("second")
    with pytest.raises(ValueError, match="`names` must have one for each of the 1 `rows`, got 2"):
        side_by_side([[FILM.to_svg()]], ["one"], ["one", "two"])


def test_png(tmp_path):
    pytest.importorskip("resvg_py")
    FILM.to_png(tmp_path / "film.png")
    assert (tmp_path / "film.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="`zoom` must lie between"):
        FILM.to_png(tmp_path / "film.png", zoom=0)


def test_uniform_trees_are_uniform():
    torch.manual_seed(0)
    trees = baseline_trees([Tree(("a", "b"), (0, 1))] * 4000)["random"]
    share = sum(tree.heads == (0, 1) for tree in trees) / len(trees)
    assert share == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    "integers", [np.array, lambda heads: np.array(heads, dtype=np.uint8), torch.tensor, lambda heads: list(torch.tensor(heads))]
)
def test_integers_of_all_kinds(integers):
    tree = Tree(np.array(["a", "b"]), integers([2, 0]), np.array([0.5, 1.0]), [(np.int64(0), torch.tensor(0), np.float32(0.5))])
    assert tree == Tree(("a", "b"), (2, 0), (0.5, 1.0), ((0, 0, 0.5),))
    assert {type(value) for value in (*tree.heads, *tree.other_arcs[0][:2])} == {int}
    assert {type(value) for value in (*tree.weights, tree.other_arcs[0][2])} == {float}
    assert {type(word) for word in tree.words} == {str}
    assert hash(tree) == hash(Tree(("a", "b"), (2, 0), (0.5, 1.0), ((0, 0, 0.5),)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((("a",), (False,)), TypeError, "`heads` must be integers, got False"),
        ((("a",), np.array([False])), TypeError, "`heads` must be integers, got False"),
        ((("a",), torch.tensor([False])), TypeError, "`heads` must be integers, got False"),
        ((("a",), np.array([0.0])), TypeError, "`heads` must be integers, got 0.0"),
        ((("a",), [None]), TypeError, "`heads` must be integers, got None"),
        ((("a",), ["0"]), TypeError, "`heads` must be integers, got '0'"),
        ((("a", "b"), torch.tensor([[2, 0]])), TypeError, r"`heads` must be integers, got \[2, 0\]"),
        ((("a",), (10**30,)), ValueError, "a head between 0 .ROOT. and 1"),
        ((("a",), (-1,)), ValueError, "a head between 0"),
        ((("a",), ()), ValueError, "`heads` must give each of the 1 words"),
        (((b"a",), (0,)), TypeError, "`words` must be strings, got b'a'"),
        (((None,), (0,)), TypeError, "`words` must be strings, got None"),
        (("ab", (2, 0)), TypeError, "`words` must be several values in a tuple or list, got one, 'ab'"),
        ((None, ()), TypeError, "`words` must be several values .* got one, None"),
        ((("a",), 0), TypeError, "`heads` must be several values .* got one, 0"),
        ((("a",), torch.tensor(0)), TypeError, "`heads` must be several values .* got one, 0"),
        ((("a",), (0,), 0.5), TypeError, "`weights` must be several values .* got one, 0.5"),
        ((("a",), (0,), (), 7), TypeError, "`other_arcs` must be several values .* got one, 7"),
        ((("a",), (0,), (), (), 7), TypeError, "`offsets` must be several values .* got one, 7"),
        ((("a",), (0,), (float("nan"),)), ValueError, "`weights` must be finite"),
        ((("a",), (0,), ("1",)), ValueError, "`weights` must be finite"),
        ((("a",) * 10**5, (7,) * 10**5), ValueError, "form a tree"),
    ],
)
def test_what_makes_no_tree(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        Tree(*arguments)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "arc",
    [(5, 9, 0.5), (-1, 0, 0.5), (0, 3, 0.5), (0, -1, 0.5), (0, 0), 7, "abc", (0, 0, "x"), (0.0, 0, 0.5), (0, 0, float("inf"))],
)
def test_other_arcs_that_there_cannot_be(arc):
    with pytest.raises(ValueError, match="`other_arcs` must be of a word between 0 and 1, a head between 0"):
        Tree(("a", "b"), (2, 0), (0.5, 1.0), (arc,))


@pytest.mark.parametrize("arc", [(0, 1, 0.5), (0, 2, 0.5)])
def test_other_arcs_are_others(arc):
    with pytest.raises(ValueError, match="must be beside the tree's own, and of no word to itself"):
        Tree(("a", "b"), (2, 0), (0.5, 1.0), (arc,))


@pytest.mark.parametrize(
    "offsets", [[(0, 1)], [(0, 1), (3, 2)], [(-1, 1), (2, 3)], [(0, 1), 2], [(0, 1), (2, 3, 4)], [(0, 1), (2.0, 3)]]
)
def test_offsets_that_there_cannot_be(offsets):
    with pytest.raises(ValueError, match="`offsets` must be"):
        Tree(("a", "b"), (2, 0), offsets=offsets)


@pytest.mark.parametrize("offsets", [[[0, 1], [2, 3]], np.array([[0, 1], [2, 3]]), torch.tensor([[0, 1], [2, 3]])])
def test_offsets_of_all_kinds(offsets):
    assert Tree(("a", "b"), (2, 0), offsets=offsets).offsets == ((0, 1), (2, 3))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_depths_and_crossing_arcs_of_all_trees(n):
    for row in DependencyTree(projective=False).enumerate(n):
        heads = row.argmax(1)
        tree = Tree(list("abcd"[:n]), heads)
        assert tree.is_projective == bool(is_tree(heads[None], projective=True))
        for word, depth in enumerate(tree.depths, start=1):
            for _ in range(depth - 1):
                word = tree.heads[word - 1]
            assert tree.heads[word - 1] == 0


@pytest.mark.parametrize("shape", ["flat", "right-branching", "left-branching", "random", "crossed"])
def test_long_sentences_take_no_longer_than_they_must(shape):
    """Depths, crossing arcs, texts and pictures of twenty thousand words, which were quadratic."""
    n = 20_000
    heads = {
        "flat": [0] * n,
        "right-branching": list(range(n)),
        "left-branching": [*range(2, n + 1), 0],
        "random": [0, *(int(torch.randint(1, word + 1, ())) for word in range(1, n))],
        "crossed": [0, 0, *range(1, n - 1)],
    }[shape]
    tree = Tree(["word"] * n, heads)
    started = time.process_time()
    assert max(tree.depths) == {"flat": 1, "right-branching": n, "left-branching": n, "crossed": n // 2}.get(
        shape, max(tree.depths)
    )
    assert tree.is_projective == (shape not in ("random", "crossed"))
    text = tree.to_text()
    assert text.count("word") == n + text.count("<- word")
    assert len(text) < 300 * n
    assert tree.to_svg().count(">word<") == n
    assert time.process_time() - started < 10


@pytest.mark.parametrize("n", range(5))
def test_questions_about_heads_are_answered_as_by_the_definition(n):
    for heads in itertools.product(range(n + 1), repeat=n):
        tensor = torch.tensor([heads], dtype=torch.long).view(1, n)
        assert of_heads.is_tree(heads) == bool(is_tree(tensor))
        if of_heads.is_tree(heads):
            assert of_heads.is_projective(heads) == bool(is_tree(tensor, projective=True))
