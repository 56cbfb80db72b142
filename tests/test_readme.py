"""What the README prints, runs."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block-{number}" for number in range(len(BLOCKS))])
def test_code_block(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what it writes
    code = compile(block, str(README), "exec")
    if "# needs the Hub" not in block:
        exec(code, {})


def test_files_that_are_named_exist():
    text = README.read_text(encoding="utf-8")
    for name in re.findall(r"(?:examples|hf_latent)/[\w/]+\.(?:py|svg|png|md)", text):
        assert (README.parent / name).exists(), name
