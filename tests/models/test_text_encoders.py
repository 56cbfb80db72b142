"""Every text model of the installed transformers below a latent tree: it does all that it should, or is refused, and why."""

import inspect
import re
from pathlib import Path

import pytest
import torch
import transformers
from tiny_encoders import ROPE, text_kinds, tiny_config
from transformers import PreTrainedModel

import hf_latent
from hf_latent import LatentTreeForSequenceClassification, LatentTreeModel, parse
from hf_latent.models.words import encoders

TEXTS = ["a very good film .", "not bad", "a good , very good unwatchable film ."]
LIST = Path(hf_latent.__file__).parent / "models" / "words" / "refused_encoders.md"
REFUSED = re.findall(r"`(.+?)`", "".join(re.findall(r"^\| (`.+?`) \|", LIST.read_text(), flags=re.MULTILINE)))
KINDS = [kind for kind in text_kinds() if kind not in REFUSED]
SOME_OTHERS = [
    # Text parts of larger models, whose classes speak of images as well.
    *(pytest.param(kind, {}, id=kind) for kind in ("minimax_m3_vl_text", "mistral_large4_text", "molmo2_text")),
    pytest.param("big_bird", {"attention_type": "original_full"}, id="big_bird-full"),
    pytest.param("opt", {"word_embed_proj_dim": 24}, id="opt-projected"),
    pytest.param("llama", {"rope_parameters": ROPE | {"rope_type": "dynamic", "factor": 2.0}}, id="llama-dynamic"),
    pytest.param("deberta-v2", {"relative_attention": True, "position_biased_input": False}, id="deberta-v2-relative"),
]
ENCODERS = [*(pytest.param(kind, {}, id=kind) for kind in KINDS), *SOME_OTHERS]


def tiny_encoder(kind: str, **sizes) -> PreTrainedModel:
    """With all weights at random, those of padding and norms among them, so that what they do is seen."""
    torch.manual_seed(0)
    encoder = encoders.new_encoder(tiny_config(kind, **sizes))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def list_of_refused() -> str:
    """The kinds that are refused when a model is made, by the reason that the error gives."""
    kinds: dict[str, list[str]] = {}
    for kind in text_kinds():
        try:
            LatentTreeModel.from_encoder(tiny_encoder(kind))
        except ValueError as error:
            said = str(error).split(repr(kind), maxsplit=1)[1].lstrip("): ")
            kinds.setdefault(re.split(r" \(by |\. |\.$", said)[0], []).append(f"`{kind}`")
    rows = [f"| {', '.join(names)} | {reason} |" for reason, names in kinds.items()]
    return "\n".join(
        [
            f"Of the {len(text_kinds())} types of text models in transformers {transformers.__version__}, these are refused:",
            "",
            "| type | why |",
            "|:--|:--|",
            *rows,
            "",
        ]
    )


def test_the_list_of_what_is_refused_is_that_of_the_version_installed():
    if f"transformers {transformers.__version__}," not in LIST.read_text():
        pytest.skip(f"the list is not that of transformers {transformers.__version__}")
    assert LIST.read_text() == list_of_refused(), "write it anew: python tests/models/test_text_encoders.py"
    readme = Path(__file__).parents[2] / "README.md"
    assert LIST.read_text().strip() in readme.read_text(), "put it into README.md as well"


@pytest.mark.parametrize(("kind", "sizes"), ENCODERS)
def test_one_text_has_the_same_logits_however_it_is_asked_for(kind, sizes, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(
        tiny_encoder(kind, **sizes), wordpiece, num_labels=2, estimator="marginals", arc_size=8, decoder_size=8
    ).eval()
    rows = [wordpiece(text)["input_ids"] for text in TEXTS]
    left, right = ([0] * (len(rows[2]) - len(row)) for row in rows[:2])
    # One row is padded on the left, one on the right, one not at all, and one is nothing but padding.
    ids = torch.tensor([left + rows[0], rows[1] + right, rows[2], [0] * len(rows[2])])
    batch = {"input_ids": ids, "attention_mask": ids.ne(0).long()}
    with torch.no_grad():
        alone = torch.cat([model(**wordpiece(text, return_tensors="pt")).logits for text in TEXTS[:2]])
        nothing = model(input_ids=ids[:, :0], attention_mask=ids[:, :0]).logits
    output = model(**batch, labels=torch.tensor([0, 1, 1, 0]))
    torch.testing.assert_close(output.logits[:2], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.logits[3:].expand(4, 2), nothing)
    output.loss.backward()
    for part in (model.base_model.encoder, model.base_model.tree):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().max() > 0 for gradient in gradients)
    model.save_pretrained(tmp_path)
    loaded = LatentTreeForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, output.logits, rtol=0, atol=1e-6)
    embedded = LatentTreeModel.from_encoder(model.base_model.encoder, wordpiece, estimator=None, decoder_input="embeddings")
    assert embedded(**batch).last_hidden_state.shape[:2] == (4, 8)
    assert [len(tree.words) for tree in parse(model, wordpiece, [*TEXTS, ""])] == [5, 2, 8, 0]


# Beyond the last position, these go on: with the last one again, and with other angles for all.
GO_ON = {"tapas", "llama"}


@pytest.mark.parametrize(("kind", "sizes"), ENCODERS)
def test_the_longest_text_is_that_of_the_encoder(kind, sizes):
    encoder = tiny_encoder(kind, **sizes).eval()
    longest = encoders.longest_text(encoder)
    options = {"use_cache": False} if "use_cache" in inspect.signature(encoder.forward).parameters else {}
    ids = 5 + torch.arange(90)[None] % 8
    with torch.no_grad():
        assert encoder(ids[:, :longest], **options).last_hidden_state.isfinite().all()
        if longest is None:
            return
        if kind not in GO_ON:
            with pytest.raises((IndexError, RuntimeError, ValueError)):
                encoder(ids[:, : longest + 1], **options)
        with pytest.raises(ValueError, match=rf"has {longest + 1} tokens, .* positions for {longest}\..*max_length={longest}"):
            encoders.encode(encoder, None, input_ids=ids[:, : longest + 1])


if __name__ == "__main__":
    LIST.write_text(list_of_refused())
