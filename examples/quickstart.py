"""A latent tree over BERT, learned from sentiment labels, and looked at: the README's first lines."""

from datasets import load_dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments, pipeline

from hf_latent import LatentTreeForSequenceClassification

tokenizer = AutoTokenizer.from_pretrained("google-bert/bert-base-uncased")
model = LatentTreeForSequenceClassification.from_encoder("google-bert/bert-base-uncased", num_labels=2, estimator="marginals")
data = load_dataset("stanfordnlp/sst2", split="train[:1000]").map(lambda row: tokenizer(row["sentence"]))
Trainer(model, TrainingArguments("bert-with-trees"), train_dataset=data, processing_class=tokenizer).train()
parser = pipeline("latent-tree-parsing", model=model, tokenizer=tokenizer)
print(parser("An intelligent, moving and invigorating film.")["tree"].to_text())
