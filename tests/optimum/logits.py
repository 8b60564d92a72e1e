"""Print logits and labels that optimum gives for exported directories, a JSON object.

Runs in an environment of its own (requirements/optimum.txt) and imports nothing of this project.

    python logits.py TEXTS.json DIR...
"""

import json
import sys
from pathlib import Path

import torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline


def classify(directory: str, texts: list[str]) -> dict[str, object]:
    model = ORTModelForSequenceClassification.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits
    classifier = pipeline("text-classification", model=model, tokenizer=tokenizer)
    predictions = classifier(texts, batch_size=len(texts), truncation=True)
    return {"logits": logits.tolist(), "predictions": predictions}


if __name__ == "__main__":
    texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps({directory: classify(directory, texts) for directory in sys.argv[2:]}))
