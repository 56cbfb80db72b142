"""The Space shows what the models compute, in a real browser too, and tells its visitors what to do where it cannot."""

import importlib.util
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
from html import unescape
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_latent import LatentTreeForPairClassification, LatentTreeForSequenceClassification, parse
from hf_latent.trees import Tree

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
gr = pytest.importorskip("gradio", reason="needs Gradio: pip install gradio")

EXAMPLES = Path(__file__).parents[2] / "examples"
SPACE = EXAMPLES / "space"
SENTENCE = "not a very unwatchable film ."
ESTIMATORS = {"spigot": "spigot", "marginals": "marginals", "no tree": None}
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def app():
    specification = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def models_file(tmp_path, tiny_bert, wordpiece):
    """Three tiny models of one task, and the file that names them."""
    for name, estimator in ESTIMATORS.items():
        model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=estimator)
        model.config.id2label, model.config.label2id = {0: "<bad>", 1: "good"}, {"<bad>": 0, "good": 1}
        model.save_pretrained(tmp_path / name)
        wordpiece.save_pretrained(tmp_path / name)
    return write(tmp_path, {"Films": {"models": list(ESTIMATORS), "examples": [SENTENCE]}})


def write(folder: Path, tasks: object) -> Path:
    file = folder / "models.json"
    file.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
    return file


def cards(html: str) -> dict[str, str]:
    return {re.search("<h3>(.*?)</h3>", card)[1]: card for card in html.split('<div class="card">')[1:]}


def test_each_card_has_the_tree_and_the_prediction_of_its_model(app, models_file):
    page = app.build(models_file)
    handler = next(function.fn for function in page.fns.values() if function.name == "show_trees")
    found = cards(handler("Films", list(ESTIMATORS), f"  {SENTENCE}\n"))
    assert list(found) == list(ESTIMATORS)
    for name, card in found.items():
        folder = models_file.parent / name
        model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        trees = [] if name == "no tree" else parse(model, tokenizer, [SENTENCE])
        assert re.findall("<svg.*?</svg>\n", card, re.DOTALL) == [tree.to_svg() for tree in trees]
        assert [unescape(text) for text in re.findall("<pre>(.*?)</pre>", card, re.DOTALL)] == [
            tree.to_text() for tree in trees
        ]
        expected = pipeline("text-classification", model=folder, top_k=None)([SENTENCE])[0]
        shown = re.findall(r'<div class="label( best|)">.*?<span>(.*?)</span><span>(.*?) %</span>', card)
        assert [unescape(label) for _, label, _ in shown] == ["<bad>", "good"]
        assert {unescape(label): share for _, label, share in shown} == {
            one["label"]: f"{100 * one['score']:.1f}" for one in expected
        }
        assert [unescape(label) for best, label, _ in shown if best] == [expected[0]["label"]]


def test_only_what_is_picked_is_shown(app, models_file):
    task = app.read_tasks(models_file)["Films"]
    assert list(cards(app.show(task, ["marginals"], SENTENCE))) == ["marginals"]


def test_words_that_a_model_does_not_know_are_named(app, models_file):
    task = app.read_tasks(models_file)["Films"]
    html = app.show(task, ["spigot"], "a <b>zebra</b> film")
    assert "Words that this model does not know: &lt;, b, &gt;, zebra, &lt;, /, b, &gt;." in html
    assert "<b>" not in html
    assert "not know" not in app.show(task, ["spigot"], SENTENCE)


def test_what_is_shown_is_escaped_and_bounded(app, models_file, monkeypatch):
    name = "<img src=x onerror=alert(1)>" + "y" * 10**6
    task = app.Task({name: str(models_file.parent / "spigot")}, [SENTENCE], "")
    model = app.load(task.models[name]).model
    labels = {number: f"<i>label</i>\x1b{number}" + "z" * 10**5 for number in range(50)}
    monkeypatch.setattr(model.config, "id2label", labels)
    monkeypatch.setattr(model.classifier, "bias", torch.nn.Parameter(torch.arange(50.0)))
    monkeypatch.setattr(model.classifier, "weight", torch.nn.Parameter(torch.zeros(50, model.classifier.in_features)))
    html = app.show(task, [name], f"a {'q' * 500} \x1b\u202e<u> film")
    assert len(html) < 20_000
    assert not re.search(r"<img|<i>label|<u>|[\x00-\x09\x0b-\x1f\u202e]", html)
    shown = re.findall(r"<span>&lt;i&gt;label&lt;/i&gt;\N{REPLACEMENT CHARACTER}(\d+)z*…</span>", html)
    assert shown == [str(number) for number in range(30, 50)]
    with pytest.raises(gr.Error) as error:
        app.show(task, [name], "a film " * 20)
    assert "'&lt;img src=x" in error.value.message
    assert "<" not in error.value.message
    assert len(error.value.message) < 300


def test_a_file_of_models_with_a_byte_order_mark(app, models_file):
    models_file.write_text("\ufeff" + models_file.read_text(), encoding="utf-8")
    assert list(app.read_tasks(models_file)) == ["Films"]


def test_models_of_the_same_estimator_go_by_their_own_names(app, models_file):
    shutil.copytree(models_file.parent / "spigot", models_file.parent / "again")
    file = write(models_file.parent, {"Films": {"models": ["spigot", "again", "marginals"], "examples": [SENTENCE]}})
    spigot, again, marginals = app.read_tasks(file)["Films"].models
    assert (spigot[:8], again[:8], marginals) == ("spigot (", "spigot (", "marginals")
    assert spigot != again


@pytest.mark.parametrize(
    ("estimators", "sentence", "message"),
    [
        (["spigot"], " \n", r"There is no sentence yet\. Type one"),
        ([], SENTENCE, r"No estimator is picked\. Tick one or more"),
        (["spigot"], "a" * 10**7, r"The sentence has 10000000 characters, and may have 1000\. Make it shorter"),
        (["spigot"], "a film " * 20, r"The sentence has 42 tokens, and 'spigot' takes 40\. Make it shorter"),
        (["marginals"], SENTENCE, r"The model of 'marginals' cannot be loaded now\. Untick it"),
    ],
)
def test_a_visitor_is_told_what_to_do(app, models_file, estimators, sentence, message):
    task = app.read_tasks(models_file)["Films"]
    (models_file.parent / "marginals" / "model.safetensors").write_bytes(b"cut off")
    app.load.cache_clear()
    with pytest.raises(gr.Error) as error:
        app.show(task, estimators, sentence)
    assert re.search(message, error.value.message)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (None, "There is no models.json that says which models to show. Run `python prepare.py`"),
        ("{", "models.json must name at least one task"),
        ([], "models.json must name at least one task"),
        ({"Films": ["spigot"]}, "models.json must name at least one task"),
        ({"Films": {"models": ["spigot"]}}, "models.json must name at least one task"),
        ({"Films": {"models": [], "examples": [SENTENCE]}}, "for each task at least one model and one example"),
        ({"Films": {"models": [3], "examples": [SENTENCE]}}, "models.json must name at least one task"),
        ({"Films": {"models": ["a", 3], "examples": [SENTENCE]}}, "models.json must name at least one task"),
        ({"Films": {"models": ["a"], "examples": [SENTENCE], "about": 3}}, "models.json must name at least one task"),
        ("[" * 100_000, "models.json must name at least one task"),
        (
            {"Films": {"models": ["<script>alert(1)</script>"], "examples": [SENTENCE]}},
            "'&lt;script&gt;alert(1)&lt;/script&gt;', which",
        ),
        (
            {"Films": {"models": ["not/a/model"], "examples": [SENTENCE]}},
            "'not/a/model', which is neither a folder beside it nor a model on the Hub",
        ),
        (
            {"Pairs": {"models": ["pairs"], "examples": [SENTENCE]}},
            "which is no LatentTreeForSequenceClassification. Leave it out",
        ),
    ],
)
def test_a_file_of_models_that_cannot_be_used(app, tmp_path, tiny_bert, wordpiece, tasks, message):
    """The page says so, in place of everything else."""
    LatentTreeForPairClassification.from_encoder(tiny_bert, wordpiece, num_labels=2).save_pretrained(tmp_path / "pairs")
    page = app.build(tmp_path / "models.json" if tasks is None else write(tmp_path, tasks))
    texts = [block.value for block in page.blocks.values() if isinstance(block, gr.Markdown)]
    assert len(texts) == len(page.blocks) == 2
    assert message in texts[1]


def test_requirements_are_those_of_the_library():
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    ours = [line for line in lines if not line.startswith(("#", "--"))]
    assert sorted(ours) == sorted(line for line in requires("hf_latent") if "extra ==" not in line)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What `prepare.py` makes, with little training."""
    folder = tmp_path_factory.mktemp("space")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(
            sys, "argv", ["prepare.py", "--output_dir", str(folder), "--sentences", "200", "--epochs", "1", "--starts", "2"]
        )
        try:
            runpy.run_path(str(SPACE / "prepare.py"), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
    return folder


def test_prepared_models_know_their_labels_and_load_anywhere(prepared):
    for folder in json.loads((prepared / "models.json").read_text())["Little language"]["models"]:
        model = LatentTreeForSequenceClassification.from_pretrained(prepared / folder)
        assert model.config.label2id == {"discord": 0, "harmony": 1}
        assert set(model.config.parser_input) == {0, 1, 2, 3}


@pytest.fixture
def address(prepared, tmp_path):
    """The page of `app.py` in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SPACE / "app.py"), "--models_file", str(prepared / "models.json")]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            if f"http://127.0.0.1:{port}" in log.read_text():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    if not any(found):
        pytest.skip("needs a Chromium, which is not on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=next(filter(None, found)), args=ARGUMENTS)
        yield browser
        browser.close()


def test_in_a_browser(prepared, browser, address, tmp_path):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked_for = []
    page.on("request", lambda request: asked_for.append(request.url))
    page.goto(address)
    page.locator(".card").nth(3).wait_for()  # those of the first example, by all models

    page.get_by_label("Sentence").fill("frosty pine beside golden harvest")
    page.get_by_label("perturb_and_map").uncheck()
    page.get_by_label("no tree").uncheck()
    page.get_by_role("button", name="Show trees").click()
    page.locator(".card text", has_text="golden").nth(1).wait_for()
    shown = page.locator(".card")
    assert shown.locator("h3").all_text_contents() == ["spigot_ce", "sparsemap"]
    for place, name in enumerate(("spigot_ce", "sparsemap")):
        folder = prepared / "models" / f"classes-{name}"
        model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        tree = parse(model, tokenizer, ["frosty pine beside golden harvest"])[0]
        assert_shows(shown.nth(place), tree)
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 30_000

    page.get_by_label("Little language, words in sight").check()
    page.locator(".card text", has_text="sunny").first.wait_for()  # its first example
    assert shown.locator("h3").all_text_contents() == ["spigot_ce", "sparsemap"]

    page.get_by_label("Sentence").fill("")
    page.get_by_role("button", name="Show trees").click()
    page.get_by_text("There is no sentence yet. Type one, or choose one of the examples.").wait_for()
    assert not [url for url in asked_for if not url.startswith((address, "data:", "blob:"))]


def assert_shows(card, tree: Tree) -> None:
    """The words and the tree; weights, which two processes may round differently, are left out."""
    svg = tree.to_svg()
    if not tree.other_arcs:
        arcs = card.locator("svg path").evaluate_all("arcs => arcs.map(arc => arc.getAttribute('d'))")
        assert sorted(arcs) == sorted(re.findall(r'<path d="(.*?)"', svg))
    words = [text for text in card.locator("svg text").all_text_contents() if not text.startswith(".")]
    assert sorted(words) == sorted(text for text in re.findall("<text.*?>(.*?)</text>", svg) if not text.startswith("."))
    shown, expected = (re.sub(r" *\(0\.\d\d\)", "", text) for text in (card.locator("pre").text_content(), tree.to_text()))
    assert shown == expected
