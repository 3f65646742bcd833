"""Real English text that every Python installation carries: the reference topics behind ``help()``."""

import json
import re
from pathlib import Path
from pydoc_data.topics import topics

LEAST_WORDS = 6
LEAST_LETTERS = 0.65
"""Share of letters below which a paragraph is code or a table."""


def sentences() -> list[str]:
    """Return distinct sentences of the topics, in order."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", "\n\n".join(topics.values())):
        text = re.sub(r"\s+", " ", paragraph).strip()
        if text and sum(letter.isalpha() for letter in text) >= LEAST_LETTERS * len(text):
            found += re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
    return list(dict.fromkeys(sentence for sentence in found if len(sentence.split()) >= LEAST_WORDS))


def write_texts(evaluation: Path, calibration: Path, *, examples: int = 480) -> None:
    """Write two JSONL files without common sentences: every fourth sentence is for calibration."""
    texts = sentences()
    chosen = {
        calibration: [text for index, text in enumerate(texts) if index % 4 == 0],
        evaluation: [text for index, text in enumerate(texts) if index % 4 != 0][:examples],
    }
    for path, lines in chosen.items():
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in lines), encoding="utf-8")
