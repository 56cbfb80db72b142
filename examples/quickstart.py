"""A latent tree over a pretrained encoder, before any training: three lines to put it there, two to see it.

python examples/quickstart.py bert-base-uncased
"""

import sys

from transformers import AutoTokenizer, pipeline

from hf_latent import LatentTreeForSequenceClassification

encoder = sys.argv[1] if len(sys.argv) > 1 else "bert-base-uncased"
tokenizer = AutoTokenizer.from_pretrained(encoder)
model = LatentTreeForSequenceClassification.from_encoder(encoder, num_labels=2, estimator="spigot")
# Here, train it: `Trainer(model, arguments, train_dataset=..., processing_class=tokenizer).train()`.
parser = pipeline("latent-tree-parsing", model=model, tokenizer=tokenizer)
print(parser("A good film, and a very good one.")["tree"].to_text())
