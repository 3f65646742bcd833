"""Complete Hugging Face folders and datasets that are small enough for every test.

The weights are random but lively: their scale is chosen so that attention is not uniform, activations leave the
linear region and outputs differ from text to text. A test that confuses two heads, forgets a bias or ignores the
padding mask therefore fails, which it would not at the library's default initialisation.
"""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer
from transformers import BertConfig
from transformers import BertForSequenceClassification
from transformers import BertModel
from transformers import DistilBertConfig
from transformers import DistilBertForSequenceClassification
from transformers import DistilBertModel
from transformers import PreTrainedConfig
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast
from transformers import RobertaConfig
from transformers import RobertaForSequenceClassification
from transformers import RobertaModel
from transformers import XLMRobertaConfig
from transformers import XLMRobertaForSequenceClassification
from transformers import XLMRobertaModel

MAX_TOKENS = 64

POSITIVE = ("good", "great", "warm", "funny", "bright", "honest", "moving", "clever")
NEGATIVE = ("bad", "dull", "cold", "silly", "dim", "false", "boring", "clumsy")
NEUTRAL = ("the", "a", "film", "story", "actor", "scene", "music", "is", "was", "and", "very", "with", "plot", "it")

_BERT_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_ROBERTA_SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}

_MODELS: dict[tuple[str, str], type[PreTrainedModel]] = {
    ("bert", "sequence-classification"): BertForSequenceClassification,
    ("bert", "embedding"): BertModel,
    ("roberta", "sequence-classification"): RobertaForSequenceClassification,
    ("roberta", "embedding"): RobertaModel,
    ("xlm-roberta", "sequence-classification"): XLMRobertaForSequenceClassification,
    ("xlm-roberta", "embedding"): XLMRobertaModel,
    ("distilbert", "sequence-classification"): DistilBertForSequenceClassification,
    ("distilbert", "embedding"): DistilBertModel,
}


def make_tiny_model(
    directory: Path,
    model_type: str = "bert",
    task: str = "sequence-classification",
    layers: int = 2,
    hidden_size: int = 32,
    heads: int = 4,
    intermediate_size: int = 64,
    labels: int = 2,
    seed: int = 0,
) -> Path:
    """Write a model folder: config, safetensors, tokenizer; for embeddings also the pooling files.

    ``model_type``: ``bert`` | ``roberta`` | ``xlm-roberta`` | ``distilbert``. ``task``: ``sequence-classification`` |
    ``embedding``. Returns ``directory``. The same arguments give the same bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(model_type)
    config = _config(model_type, layers, hidden_size, heads, intermediate_size, labels, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _MODELS[model_type, task](config)
        _enliven(model)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    if task == "embedding":
        _write_pooling(directory, hidden_size)
    return directory


def make_dataset(path: Path, rows: int = 64, labelled: bool = True, seed: int = 0) -> Path:
    """Write JSONL with ``text`` and, if ``labelled``, ``label`` (1: more positive than negative words). Returns it."""
    generator = random.Random(seed)
    lines = []
    for _ in range(rows):
        label = generator.randrange(2)
        mood = POSITIVE if label else NEGATIVE
        words = [generator.choice(NEUTRAL) for _ in range(generator.randrange(3, 20))]
        for _ in range(generator.randrange(1, 4)):
            words.insert(generator.randrange(len(words) + 1), generator.choice(mood))
        row: dict[str, str | int] = {"text": " ".join(words)}
        if labelled:
            row["label"] = label
        lines.append(json.dumps(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    roberta = model_type in ("roberta", "xlm-roberta")
    special = _ROBERTA_SPECIAL if roberta else _BERT_SPECIAL
    start, end = ("<s>", "</s>") if roberta else ("[CLS]", "[SEP]")
    tokenizer = Tokenizer(WordLevel(unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = Whitespace()
    trainer = WordLevelTrainer(special_tokens=list(special.values()))
    tokenizer.train_from_iterator([" ".join(words) for words in (POSITIVE, NEGATIVE, NEUTRAL)], trainer)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} {end} $B {end}" if roberta else f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if model_type == "bert" else [])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, model_input_names=inputs, **special
    )


def _config(
    model_type: str,
    layers: int,
    hidden_size: int,
    heads: int,
    intermediate_size: int,
    labels: int,
    tokenizer: PreTrainedTokenizerFast,
) -> PreTrainedConfig:
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "num_labels": labels}
    if model_type == "distilbert":
        return DistilBertConfig(
            dim=hidden_size,
            hidden_dim=intermediate_size,
            n_layers=layers,
            n_heads=heads,
            max_position_embeddings=MAX_TOKENS,
            **common,
        )
    bert = model_type == "bert"
    config_class = {"bert": BertConfig, "roberta": RobertaConfig, "xlm-roberta": XLMRobertaConfig}[model_type]
    return config_class(
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=MAX_TOKENS if bert else MAX_TOKENS + tokenizer.pad_token_id + 1,
        type_vocab_size=2 if bert else 1,
        **common,
    )


@torch.no_grad()
def _enliven(model: PreTrainedModel) -> None:
    """Draw every parameter anew, at the scale that trained encoders have relative to their width."""
    for name, parameter in model.named_parameters():
        if "norm" in name.lower():
            parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.1)
        elif parameter.dim() == 1:
            parameter.normal_(0.0, 0.2)
        elif "embeddings" in name:
            parameter.normal_(0.0, 1.0)
        else:
            parameter.normal_(0.0, 1.2 / parameter.shape[1] ** 0.5)


def _write_pooling(directory: Path, hidden_size: int) -> None:
    """Write the files by which sentence-transformers describes mean pooling and normalisation."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (directory / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": hidden_size, "pooling_mode_mean_tokens": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
