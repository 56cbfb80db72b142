"""CoNLL-U files come back as they were, with new trees where there are any; what is wrong in them is named."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent.trees import Tree, read_conllu, read_conllu_sentences, to_conllu, to_displacy, write_conllu

DONT = (
    "# sent_id = a-1\n# text = don't go there\n1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No\n"
    "1\tdo\tdo\tAUX\tVBP\tMood=Ind\t3\taux\t3:aux\t_\n2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t3:advmod\t_\n"
    "3\tgo\tgo\tVERB\tVB\t_\t0\troot\t0:root\t_\n3.1\tover\t_\t_\t_\t_\t_\t_\t3:advmod\tCopyOf=4\n"
    "4\tthere\tthere\tADV\tRB\tPronType=Dem\t3\tadvmod:lmod\t3:advmod\tSpaceAfter=No\n\n"
)
UNPARSED = "1\ta\t_\t_\t_\t_\t_\t_\t_\t_\n2\tfilm\t_\t_\t_\t_\t_\t_\t_\t_\n\n"
UNUSUAL = {
    "plain": DONT + UNPARSED,
    "returns": (DONT + UNPARSED).replace("\n", "\r\n"),
    "mark": "\ufeff" + DONT,
    "mark before a word": "\ufeff" + UNPARSED,
    "mark before a multiword token": "\ufeff" + DONT.split("\n", 2)[2],
    "empty lines": "\n \n# alone\n\n" + DONT + "\n\t\n" + UNPARSED + "\n# the end\n\n",
    "cut off": DONT + UNPARSED.rstrip("\n"),
    "a comment at the end": DONT + "# the end",
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("packed", [False, True])
def test_files_come_back_to_the_byte(tmp_path, name, packed):
    content = UNUSUAL[name].encode()
    (tmp_path / "a.conllu").write_bytes(gzip.compress(content) if packed else content)
    sentences = read_conllu_sentences(tmp_path / "a.conllu")
    assert "".join(map(str, sentences)).encode() == content
    assert all(sentence.words in (("do", "n't", "go", "there"), ("a", "film")) for sentence in sentences)
    write_conllu(sentences, tmp_path / "b.conllu.gz")
    assert gzip.decompress((tmp_path / "b.conllu.gz").read_bytes()) == content


field = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.lists(field, min_size=9, max_size=9), min_size=1, max_size=3), min_size=1, max_size=3))
def test_whatever_stands_in_the_columns(tmp_path_factory, corpus):
    path = tmp_path_factory.getbasetemp() / "columns.conllu"
    rows = [["\t".join([str(place), *fields]) for place, fields in enumerate(rows, start=1)] for rows in corpus]
    content = "".join("\n".join(own) + "\n\n" for own in rows).encode()
    path.write_bytes(content)
    sentences = read_conllu_sentences(path)
    assert "".join(map(str, sentences)).encode() == content
    assert [sentence.column(10) for sentence in sentences] == [tuple(fields[8] for fields in own) for own in corpus]


def test_a_treebank_comes_back(data_dir):
    for name in ("dev", "train"):
        path = data_dir / "ud-ewt" / f"en_ewt-ud-{name}.conllu.gz"
        sentences, trees = read_conllu_sentences(path), read_conllu(path, single_root=True)
        content = gzip.decompress(path.read_bytes()).decode()
        assert "".join(map(str, sentences)) == content
        again = [sentence.with_tree(tree) for sentence, tree in zip(sentences, trees, strict=True)]
        assert "".join(map(str, again)) == content


def test_a_new_tree_changes_two_columns(tmp_path):
    (tmp_path / "a.conllu").write_text(DONT + UNPARSED)
    first, second = read_conllu_sentences(tmp_path / "a.conllu")
    assert first.metadata == {"sent_id": "a-1", "text": "don't go there"}
    assert first.tree().relations == ("aux", "advmod", "root", "advmod:lmod")
    changed = first.with_tree(Tree(first.words, (0, 1, 2, 3), relations=("root", "x", "y", "z")))
    expected = DONT
    for old, new in (
        ("3\taux\t", "0\troot\t"),
        ("3\tadvmod\t", "1\tx\t"),
        ("0\troot\t0", "2\ty\t0"),
        ("3\tadvmod:lmod", "3\tz"),
    ):
        assert old in expected
        expected = expected.replace(old, new, 1)
    assert str(changed) == expected
    assert str(second.with_tree(Tree(("a", "film"), (2, 0)))) == UNPARSED.replace("_\t_\t_\t_\n2", "2\tdep\t_\t_\n2").replace(
        "_\t_\t_\t_\n\n", "0\troot\t_\t_\n\n"
    )
    with pytest.raises(ValueError, match=r"a\.conllu, sentence 2: `tree` must be over its words, got 'other'"):
        second.with_tree(Tree(("other",), (0,)))


@pytest.mark.parametrize(
    ("wrong", "options", "message"),
    [
        (UNPARSED, {}, r"sentence 2, line 10: the head of word 1 must be a number .* got '_'"),
        (UNPARSED.replace("_\t_\t_\t_\n", "3\tdet\t_\t_\n"), {}, r"sentence 2, line 10: the head of word 1 .* and 2, got '3'"),
        (UNPARSED.replace("_\t_\t_\t_\n", "2\tdet\t_\t_\n"), {}, r"sentence 2, line 11: .*: word 2 from 2 hangs in a cycle"),
        (
            UNPARSED.replace("_\t_\t_\t_\n", "0\troot\t_\t_\n"),
            {"single_root": True},
            r"line 11: word 2 hangs from ROOT, from which word 1 hangs already",
        ),
        (
            UNPARSED.replace("_\t_\t_\t_\n", "0\tr\t_\t_\n"),
            {"relations": {"root": 0, "aux": 1, "advmod": 2, "advmod:lmod": 3}},
            r"line 10: the relation of word 1, 'r', is none of the 4 known ones, advmod, advmod:lmod, aux, root",
        ),
        ("1\ta\n\n", {}, r"sentence 2, line 10: expected word 1 in ten columns"),
        ("# sent_id = b\n2\ta\t_\t_\t_\t_\t0\troot\t_\t_\n\n", {}, r"sentence 2 \(b\), line 11: expected word 1"),
        ("1\tcaf\udce9\t_\t_\t_\t_\t0\troot\t_\t_\n\n", {}, r"sentence 2, line 10: byte 6 of the line \(0xe9\) is not UTF-8"),
    ],
)
def test_bad_sentences_are_named_or_skipped(tmp_path, wrong, options, message):
    path = tmp_path / "a.conllu"
    path.write_bytes((DONT + wrong + DONT).encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"a\.conllu, {'' if message.startswith('sentence') else '.*'}{message}"):
        read_conllu(path, **options)
    with pytest.warns(UserWarning, match=rf"1 sentences were skipped\. The first: .*{message}"):
        found = read_conllu(path, bad_sentences="skip", **options)
    assert [tree.words[0] for tree in found] == ["do", "do"]


def test_nothing_left(tmp_path):
    (tmp_path / "a.conllu").write_text("no\nCoNLL-U\n\nat all\n")
    for read in (read_conllu, read_conllu_sentences):
        with pytest.raises(ValueError, match=r"sentence 1, line 1: expected word 1 in ten columns .* got 'no'"):
            read(tmp_path / "a.conllu")
        with (
            pytest.warns(UserWarning, match="2 sentences were skipped"),
            pytest.raises(ValueError, match="has no sentence in it that can be read"),
        ):
            read(tmp_path / "a.conllu", bad_sentences="skip")
        with pytest.raises(ValueError, match="`bad_sentences` must be 'error' or 'skip', got 'leave'"):
            read(tmp_path / "a.conllu", bad_sentences="leave")


# --- Trees with relations

LABELLED = Tree(("a", "good", "film"), (3, 3, 0), relations=("det", "amod", "root"))


def test_relations_are_drawn():
    assert "film [root]" in LABELLED.to_text()
    svg = LABELLED.to_svg()
    assert all(f">{relation}</text>" in svg for relation in LABELLED.relations)
    other = Tree(LABELLED.words, LABELLED.heads, relations=("det", "nmod", "root"))
    assert other.to_svg(LABELLED).count("#dc2626") == 3  # the arc, its arrow and its relation
    assert ">amod</text>" in other.to_svg(LABELLED)  # below
    assert "#dc2626" not in other.to_svg(Tree(LABELLED.words, LABELLED.heads))
    assert Tree(("a",), (0,), relations=("<b>",)).to_svg().count("&lt;b&gt;") == 1


def test_relations_there_and_back(tmp_path):
    write_conllu([LABELLED], tmp_path / "a.conllu")
    assert read_conllu(tmp_path / "a.conllu") == [LABELLED]
    assert (tmp_path / "a.conllu").read_text() == to_conllu(LABELLED)
    assert Tree(("a",), (0,), relations=("root",)) != Tree(("a",), (0,))
    with pytest.raises(ValueError, match="`relations` must be one for each of the 2 words, or none, got 1"):
        Tree(("a", "b"), (0, 1), relations=("root",))
    with pytest.raises(TypeError, match="`relations` must be strings, got 3"):
        Tree(("a",), (0,), relations=(3,))
    with pytest.raises(ValueError, match="cannot be written as CoNLL-U"):
        to_conllu(Tree(("a",), (0,), relations=("a\tb",)))


def test_displacy():
    assert to_displacy(LABELLED) == {
        "words": [{"text": "a", "tag": ""}, {"text": "good", "tag": ""}, {"text": "film", "tag": ""}],
        "arcs": [
            {"start": 0, "end": 2, "label": "det", "dir": "left"},
            {"start": 1, "end": 2, "label": "amod", "dir": "left"},
        ],
    }
    assert to_displacy(Tree(("a", "b"), (0, 1)))["arcs"] == [{"start": 0, "end": 1, "label": "", "dir": "right"}]
