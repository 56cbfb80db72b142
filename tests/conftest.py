"""What several tests share: the four kinds of trees, a tiny encoder made on the spot, and where real data may lie."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import hub_stub
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hf_latent import DependencyTree, list_estimators

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Of transformers' own tests (see transformers_tests.py).
MARKERS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", f"{marker}: transformers' own")


# Those that work on trees of any size.
TREE_ESTIMATORS = [name for name in list_estimators() if name not in ("reinmax", "expected_loss")]
TREES = [DependencyTree(projective, single_root) for projective in (True, False) for single_root in (False, True)]


def tree_name(tree: DependencyTree) -> str:
    return f"{'projective' if tree.projective else 'non-projective'}-{'single' if tree.single_root else 'multi'}-root"


@pytest.fixture(params=TREES, ids=tree_name)
def tree(request) -> DependencyTree:
    return request.param


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    folder = Path(os.environ.get("HF_LATENT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the data folder, which is not at {folder} (set HF_LATENT_DATA)")
    return folder


SUBWORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "good",
    "bad",
    "film",
    "un",
    "##watch",
    "##able",
    "not",
    "very",
    ",",
    ".",
]


@pytest.fixture(scope="session")
def wordpiece() -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(SUBWORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture
def tiny_bert() -> BertModel:
    torch.manual_seed(1)
    return BertModel(
        BertConfig(
            vocab_size=len(SUBWORDS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
        )
    )


@pytest.fixture
def hub():
    with hub_stub.serving() as found:
        yield found


@pytest.fixture
def client(hub, tmp_path):
    """Runs Python code in a process of its own, with nothing in its cache, and returns what it printed."""
    count = 0

    def client(*code: str, packages: bool = True) -> str:
        nonlocal count
        count += 1
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / f"home{count}"),
            "HF_TOKEN": "hf_nothing",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        text = "\n".join(textwrap.dedent(part) for part in code)
        done = subprocess.run(
            [sys.executable, "-c", text],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return client


@pytest.fixture
def use_example(monkeypatch):
    """A function that makes the modules in an example's folder importable; after the test, they are forgotten."""
    threads, known, folders = torch.get_num_threads(), set(sys.modules), []

    def use(folder: Path) -> None:
        folders.append(folder)
        for path in (folder.parent, folder):
            monkeypatch.syspath_prepend(str(path))

    yield use
    torch.set_num_threads(threads)
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent in folders:
            del sys.modules[name]


def labels_of(batch, words: list[list[int]]) -> torch.Tensor:
    """Of a batch of tokens, labels at the first token of each word."""
    labels = torch.full_like(batch["input_ids"], -100)
    for row, own in enumerate(words):
        ids = batch.word_ids(row)
        for word, label in enumerate(own):
            labels[row, ids.index(word)] = label
    return labels
