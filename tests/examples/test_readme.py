"""What the README prints, runs."""

import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForTokenClassification

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("examples/**/README.md")), *sorted(ROOT.glob("model_cards/README.md"))]
BLOCKS = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block-{number}" for number in range(len(BLOCKS))])
def test_code_block(request, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what it writes
    if "bert-base-NER" in block:
        request.getfixturevalue("hub_with_a_tagger")
        assert "'entity_group': 'PER'" in request.getfixturevalue("client")(block)
    elif "from_pretrained" in block or "load_dataset" in block:
        request.getfixturevalue("hub_with_bert_and_sst2")
        assert "ROOT" in request.getfixturevalue("client")(block)
    else:
        exec(compile(block, str(PAGES[0]), "exec"), {})


def test_the_quickstart_is_that_of_the_examples():
    assert (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8").endswith(f'"""\n\n{BLOCKS[0]}')


@pytest.fixture
def hub_with_bert_and_sst2(hub, tiny_bert, wordpiece, tmp_path):
    """Small ones of these names, on the stand-in for the Hub."""
    tiny_bert.save_pretrained(tmp_path / "bert")
    wordpiece.save_pretrained(tmp_path / "bert")
    hub.repositories["google-bert/bert-base-uncased"] = {path.name: path.read_bytes() for path in (tmp_path / "bert").iterdir()}
    data = Dataset.from_dict({"sentence": ["a good film", "bad film"] * 60, "label": [1, 0] * 60})
    data.to_parquet(tmp_path / "train.parquet")
    hub.datasets["stanfordnlp/sst2"] = {"train.parquet": (tmp_path / "train.parquet").read_bytes()}


@pytest.fixture
def hub_with_a_tagger(hub, tiny_bert, wordpiece, tmp_path):
    """One that takes each word for a person."""
    labels = {0: "O", 1: "B-PER", 2: "I-PER"}
    config = BertConfig(**{**tiny_bert.config.to_dict(), "id2label": labels, "label2id": {v: k for k, v in labels.items()}})
    model = BertForTokenClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([0.0, 5.0, 0.0])
    model.save_pretrained(tmp_path / "tagger")
    wordpiece.save_pretrained(tmp_path / "tagger")
    hub.repositories["dslim/bert-base-NER"] = {path.name: path.read_bytes() for path in (tmp_path / "tagger").iterdir()}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?:examples|hf_latent)/[\w/]+\.(?:py|svg|png|md|yaml|ipynb)", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", text):
        assert (page.parent / link).exists(), link
