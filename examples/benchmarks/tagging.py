r"""What a conditional random field costs in training: milliseconds of a step, beside the same tagger with a softmax.

    python examples/benchmarks/tagging.py --encoder sentence-transformers/all-MiniLM-L6-v2
    python examples/benchmarks/tagging.py

A step is forward, backward and an update by AdamW, of batches of 32 drawn sentences of up to 20 words, with 13 labels. With an
encoder, the softmax is transformers' own model for token classification; without one, a BiLSTM of 200 units is below both. The
two take turns on each batch, so that a busy machine is unfair to neither.
"""

import argparse
import statistics
import time

import torch
from transformers import AutoModel, AutoModelForTokenClassification, PreTrainedModel

from hf_latent import BiLstmConfig, BiLstmModel, CRFForTokenClassification, LatentTreeForTokenClassification

BATCH, WORDS, LABELS = 32, 20, 13
NAMES = {0: "O", **{2 * kind + place + 1: f"{letter}-{kind}" for kind in range(6) for place, letter in enumerate("BI")}}


def new_models(encoder: str | None) -> tuple[dict[str, PreTrainedModel], int]:
    """Both taggers, and how many tokens the encoder knows."""
    if encoder is not None:
        softmax = AutoModelForTokenClassification.from_pretrained(encoder, id2label=NAMES)
        field = CRFForTokenClassification.from_encoder(AutoModel.from_pretrained(encoder), id2label=NAMES, dropout=0.1)
        return {"softmax": softmax, "CRF": field}, softmax.config.vocab_size
    config = BiLstmConfig(vocab_size=10_000, embedding_size=100, hidden_size=200)
    softmax = LatentTreeForTokenClassification.from_encoder(BiLstmModel(config), estimator=None, id2label=NAMES, dropout=0.1)
    field = CRFForTokenClassification.from_encoder(BiLstmModel(config), id2label=NAMES, dropout=0.1)
    return {"softmax": softmax, "CRF": field}, config.vocab_size


def new_batch(vocabulary: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Sentences of words of a token each, with labels that are spans; and the words."""
    lengths = torch.randint(WORDS // 2, WORDS + 1, (BATCH,))
    inside = torch.arange(WORDS) < lengths[:, None]
    starts = 2 * torch.randint(0, LABELS // 2, (BATCH, WORDS)) + 1
    labels = torch.where(torch.rand(BATCH, WORDS) < 0.2, starts, 0).masked_fill(~inside, -100)
    inputs = {"input_ids": torch.randint(1, vocabulary, (BATCH, WORDS)), "attention_mask": inside.long(), "labels": labels}
    return inputs, torch.arange(WORDS).expand(BATCH, WORDS).masked_fill(~inside, -1)


def step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, inputs: dict[str, torch.Tensor]) -> float:
    """Its milliseconds."""
    started = time.perf_counter()
    optimizer.zero_grad()
    model(**inputs).loss.backward()
    optimizer.step()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", help="a name on the Hub, or a folder; by default a BiLSTM")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    models, vocabulary = new_models(arguments.encoder)
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}
    spent: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(arguments.steps + 2):
        inputs, word_ids = new_batch(vocabulary)
        for name, model in models.items():
            own = {} if name == "softmax" and arguments.encoder is not None else {"word_ids": word_ids}
            taken = step(model.train(), optimizers[name], {**inputs, **own})
            if turn >= 2:  # the first compile kernels
                spent[name].append(taken)
    medians = {name: statistics.median(own) for name, own in spent.items()}
    ratios = [field / softmax for softmax, field in zip(*spent.values(), strict=True)]
    print(
        f"Softmax {medians['softmax']:.1f} ms, CRF {medians['CRF']:.1f} ms: {statistics.median(ratios):.3f} times (median of "
        f"{len(ratios)} steps in turns), {torch.get_num_threads()} threads."
    )


if __name__ == "__main__":
    main()
