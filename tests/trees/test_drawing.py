"""Trees drawn as text and as pictures, compared and parsed out of a model."""

import re
import xml.etree.ElementTree as xml
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent import LatentTreeForSequenceClassification, parse
from hf_latent.trees import Tree, side_by_side, write_png
from hf_latent.trees.drawing import shown

FILM = Tree(("a", "good", "film", "that", "works"), (3, 3, 0, 5, 3))


def test_text():
    assert FILM.to_text().splitlines() == [
        "ROOT",
        "│  ╭─── a",
        "│  ├─── good",
        "╰──┤ film",
        "   │  ╭─── that",
        "   ╰──╯ works",
    ]


def test_text_shows_weights_below_one():
    assert "film  (0.25)" in Tree(("film",), (0,), (0.25,)).to_text()
    assert Tree((), ()).to_text() == "ROOT"


def test_svg_is_well_formed_and_marks_differences():
    words = ("<b>", "&", "film")
    drawing = Tree(words, (3, 3, 0)).to_svg(gold=Tree(words, (2, 3, 0)))
    root = xml.fromstring(drawing)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert [text for text in texts if text != "root"] == list(words)
    assert drawing.count("#dc2626") == 2  # one wrong arc: its line and its tip
    assert drawing.count("stroke-dasharray") == 1
    with pytest.raises(ValueError, match="same words"):
        FILM.to_svg(gold=Tree(words, (2, 3, 0)))


def test_svg_of_extremes():
    for count in (0, 1, 60):
        xml.fromstring(Tree(tuple("word" for _ in range(count)), tuple(range(count))).to_svg())


def test_depths():
    assert FILM.depths == [2, 2, 1, 3, 2]


@pytest.mark.parametrize("estimator", ["spigot", "marginals"])
def test_parse(tiny_bert, wordpiece, estimator):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=estimator)
    trees = parse(model, wordpiece, ["A good, unwatchable film.", ""])
    assert trees[0].words == ("A", "good", ",", "unwatchable", "film", ".")
    assert trees[1].words == ()
    weights = set(trees[0].weights)
    assert weights == {1.0} if estimator == "spigot" else max(weights) <= 1
    assert model.training
    assert parse(model, wordpiece, [["A", "unwatchable", "film."], []])[0].words == ("A", "unwatchable", "film.")
    with pytest.raises(TypeError, match="list of strings"):
        parse(model, wordpiece, "a good film")
    with pytest.raises(ValueError, match=r"no token for word 1 \(' '\) of 'a   film'"):
        parse(model, wordpiece, [["a", " ", "film"]])
    assert model.training
    model.base_model.encoder.eval()
    parse(model, wordpiece, ["a film"])
    assert model.training
    assert not model.base_model.encoder.training
    with pytest.raises(TypeError, match="throughout"):
        parse(model, wordpiece, ["a good film", ["a", "film"]])
    plain = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, estimator=None)
    with pytest.raises(ValueError, match="no latent tree to show"):
        parse(plain, wordpiece, ["a"])


# What a terminal obeys, what breaks a line, what turns the order of what follows, and what no XML can hold.
HARMFUL = ["\x1b]0;title\x07", "\x1b[2J", "\x9b2J", "a\nROOT", "a\rb", "\t", "\x00", "\x7f", "\x85", "a\u2028b"]
HARMFUL += ["\u202ea", "\u2066a", "\ud83d", "\ufffe", "\uffff"]
# What some scripts are not written without: joiners, marks, wide characters, writing from the right.
HARMLESS = ["می\u200cخواهم", "👩\u200d🚀", "e\u0301", "नमस्ते", "漢字", "שלום\u200f", "a\u00a0b", "☺\ufe0f", "\u00adx"]
HARMLESS += ["<b>&amp;\"'"]


@pytest.mark.parametrize("word", HARMFUL)
def test_what_must_not_be_shown(word, tmp_path):
    tree = Tree((word, "b"), (0, 1))
    text, drawing = tree.to_text(), tree.to_svg()
    assert len(text.split("\n")) == len(text.splitlines()) == 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    for picture in (drawing, side_by_side([[drawing]], [word], [word])):
        texts = [element.text for element in xml.fromstring(picture.encode()).iter() if element.tag.endswith("text")]
        assert sum("\N{REPLACEMENT CHARACTER}" in one for one in texts) >= 1
        assert not set(picture) & set(word) - set("abROT0;tile[2J]\n")
    assert word not in unescape(tree._repr_html_())
    pytest.importorskip("resvg_py")
    write_png(side_by_side([[drawing]], [word], [word]), tmp_path / "x.png", 1)


@pytest.mark.parametrize("word", HARMLESS)
def test_what_must_be_shown_as_it_is(word):
    tree = Tree((word,), (0,))
    assert tree.to_text().endswith(f" {word}")
    picture = side_by_side([[tree.to_svg()]], [word], [word])
    texts = [element.text for element in xml.fromstring(picture).iter() if element.tag.endswith("text")]
    assert texts.count(word) == 3
    assert word in unescape(tree._repr_html_())


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1), st.text())
def test_any_words_can_be_drawn(word, title):
    tree = Tree((word, "b"), (2, 0))
    picture = side_by_side([[tree.to_svg()]], [title], [title])
    texts = [element.text or "" for element in xml.fromstring(picture.encode()).iter() if element.tag.endswith("text")]
    assert shown(word) in texts
    assert texts.count(shown(title)) >= 2
    assert len(tree.to_text().splitlines()) == 3


def test_words_stand_clear_of_each_other():
    """A Chinese character is as wide as two letters, and an accent takes no room."""

    def width(word: str) -> float:
        return float(xml.fromstring(Tree((word, "b"), (2, 0)).to_svg()).get("width"))

    assert width("漢字漢字漢字") == width("a" * 12)
    assert width("e\u0301" * 12) == width("a" * 12)
    assert width("می\u200cخواهم") == width("a" * 7)


def test_long_words_are_cut():
    tree = Tree(("x" * 10**7, "b"), (2, 0))
    for drawn in (
        tree.to_text(),
        tree.to_svg(),
        tree._repr_html_(),
        side_by_side([[tree.to_svg()]], ["y" * 10**6], ["z" * 10**6]),
    ):
        assert len(drawn) < 10_000
    assert "x" * 79 + "…" in tree.to_text()
    assert "x" * 79 + "…" in tree.to_svg()
    assert Tree(("x" * 80,), (0,)).to_text().endswith(" " + "x" * 80)
    with pytest.raises(ValueError, match="same words") as error:
        tree.to_svg(Tree(("y" * 10**7,), (0,)))
    assert len(str(error.value)) < 300


def test_deep_words_name_their_heads():
    count = 60
    lines = Tree([f"w{place}" for place in range(1, count + 1)], range(count)).to_text().splitlines()
    assert lines[50] == " " * (3 * 49) + "╰──╮ w50"
    assert lines[51].endswith(" w51  <- w50 (50)")
    assert lines[60].endswith(" w60  <- w59 (59)")
    assert max(map(len, lines)) < 180


def test_pictures_that_cannot_be_made(tmp_path):
    pytest.importorskip("resvg_py")
    picture = FILM.to_svg()
    for svg, zoom, message in (
        ("no picture", 1, "`svg` cannot be drawn at `zoom` 1: .*'no picture'"),
        (picture, float("nan"), "`zoom` must lie between"),
        (picture, 1e-6, "`svg` cannot be drawn at `zoom` 1e-06"),
        (Tree(["word"] * 3000, range(3000)).to_svg(), 90, "too large for a PNG file at `zoom` 90.*smaller `zoom`"),
    ):
        with pytest.raises(ValueError, match=message):
            write_png(svg, tmp_path / "x.png", zoom)
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        FILM.to_png(tmp_path / "absent" / "x.png")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="`rows` must hold SVG pictures as `to_svg` makes them, got 'no picture'"):
        side_by_side([["no picture"]], ["title"])
