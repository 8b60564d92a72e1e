"""Print logits and labels that optimum gives for exported directories, a JSON object.

Runs in an environment of its own (requirements/optimum.txt) and imports nothing of this project.

    python logits.py TEXTS.json DIR...

Directories for question answering get each text as question and as context; the pipeline a short
question.
"""

import json
import sys
from pathlib import Path

import torch
from optimum.onnxruntime import (
    ORTModelForQuestionAnswering,
    ORTModelForSequenceClassification,
    ORTModelForTokenClassification,
)
from transformers import AutoConfig, AutoTokenizer, pipeline


def predict(directory: str, texts: list[str]) -> dict[str, object]:
    (architecture,) = AutoConfig.from_pretrained(directory).architectures
    if architecture.endswith("ForQuestionAnswering"):
        return answer(directory, texts)
    if architecture.endswith("ForTokenClassification"):
        return tag(directory, texts)
    return classify(directory, texts)


def answer(directory: str, texts: list[str]) -> dict[str, object]:
    model = ORTModelForQuestionAnswering.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(texts, texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**batch)
    logits = torch.stack([found.start_logits, found.end_logits], dim=-1)
    find = pipeline("question-answering", model=model, tokenizer=tokenizer)
    answers = [find(question="what was good?", context=text) for text in texts]
    return {"logits": logits.tolist(), "predictions": answers}


def tag(directory: str, texts: list[str]) -> dict[str, object]:
    model = ORTModelForTokenClassification.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits
    labels = [[model.config.id2label[i] for i in row] for row in logits.argmax(-1).tolist()]
    return {"logits": logits.tolist(), "predictions": labels}


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
    print(json.dumps({directory: predict(directory, texts) for directory in sys.argv[2:]}))
