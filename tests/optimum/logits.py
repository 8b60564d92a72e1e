"""Print logits and labels that optimum gives for an exported directory, as JSON.

Runs in an environment of its own (requirements/optimum.txt) and imports nothing of this project.

    python logits.py DIR TEXT...
"""

import json
import sys

import torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline


def main(directory: str, texts: list[str]) -> None:
    model = ORTModelForSequenceClassification.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    predictions = classify(texts, batch_size=len(texts), truncation=True)
    print(json.dumps({"logits": logits.tolist(), "predictions": predictions}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
