"""Made-up reviews, questions and tagged words, whose labels follow from their words."""

import csv
import json
import random
from pathlib import Path

POSITIVE = ("good", "great", "fine", "lovely", "bright")
NEGATIVE = ("bad", "awful", "poor", "dull", "grim")
NEUTRAL = ("the", "film", "plot", "was", "and", "a", "very", "story", "actor", "scene")
# What write_tagged_words writes.
TAGS = ("O", "B-NEG", "B-POS", "I-NEG", "I-POS")


def write_reviews(path: Path, count: int, seed: int, labels: tuple[str, str] = ("0", "1")) -> Path:
    """Write a csv of short made-up reviews whose label follows from the words in them."""
    generator = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(count):
            label = generator.randrange(2)
            words = generator.choices(NEUTRAL, k=generator.randrange(2, 9))
            words += generator.choices((NEGATIVE, POSITIVE)[label], k=generator.randrange(1, 3))
            generator.shuffle(words)
            writer.writerow([" ".join(words), labels[label]])
    return path


def write_questions(path: Path, count: int, seed: int, *, no_answer: bool = False) -> Path:
    """Write questions in SQuAD's form, each on a context whose only positive word is the answer.

    With ``no_answer`` some contexts have none, as in version 2.0.
    """
    generator = random.Random(seed)
    paragraphs = []
    for number in range(count):
        words = generator.choices(NEUTRAL, k=generator.randrange(4, 30))
        answers = []
        if not no_answer or generator.random() < 0.6:
            place = generator.randrange(len(words) + 1)
            words.insert(place, generator.choice(POSITIVE))
            start = len(" ".join(words[:place])) + (place > 0)
            answers.append({"text": words[place], "answer_start": start})
        qa = {"id": f"q{number}", "question": "what was good?", "answers": answers}
        if no_answer:
            qa["is_impossible"] = not answers
        paragraphs.append({"context": " ".join(words), "qas": [qa]})
    version = "v2.0" if no_answer else "1.1"
    content = {"version": version, "data": [{"title": "films", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_tagged_words(path: Path, count: int, seed: int) -> Path:
    """Write sentences whose positive and negative words, one or two in a row, are entities."""
    generator = random.Random(seed)
    lines = []
    for _ in range(count):
        for _ in range(generator.randrange(1, 5)):
            lines += [f"{word}\tO" for word in generator.choices(NEUTRAL, k=2)]
            kind, words = generator.choice((("POS", POSITIVE), ("NEG", NEGATIVE)))
            chosen = generator.choices(words, k=generator.randrange(1, 3))
            positions = ("B", "I")[: len(chosen)]
            lines += [f"{w}\t{p}-{kind}" for w, p in zip(chosen, positions, strict=True)]
        lines.append("")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
