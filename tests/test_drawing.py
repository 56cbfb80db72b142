"""Trees drawn as text and as pictures, compared and parsed out of a model."""

import xml.etree.ElementTree as xml

import pytest

from hf_latent import LatentTreeForSequenceClassification
from hf_latent.trees import Tree, parse

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
