"""Open a Hugging Face folder safely: no code from the folder, no pickle, no network."""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from compressors.anatomy.bert import Bert
from compressors.anatomy.distilbert import DistilBert
from compressors.anatomy.family import Family
from compressors.anatomy.family import require
from compressors.anatomy.roberta import Roberta
from infra.errors import InvalidInputError
from infra.errors import InvalidModelError

FAMILIES: dict[str, Family] = {
    model_type: family for family in (Bert(), Roberta(), DistilBert()) for model_type in family.model_types
}

TASKS = ("sequence-classification", "embedding")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded Hugging Face model in eval mode, float32, on the CPU, and the adapter that reads it."""

    model: Any
    """A :class:`transformers.PreTrainedModel`; its attributes are typed too loosely to be checked."""
    family: Family
    task: str


def open_checkpoint(model_dir: Path, task: str) -> Checkpoint:
    """Load the model of a folder for ``task``.

    Raises:
        InvalidInputError: the task is unknown.
        InvalidModelError: a file is missing or damaged, the architecture is not supported or does not fit the task,
            or weights are missing or not finite.
    """
    if task not in TASKS:
        raise InvalidInputError(f"Unknown task {task!r}.", hint=f"Supported tasks: {', '.join(TASKS)}.")
    config = _read_config(model_dir)
    family = _family(config)
    if task == "sequence-classification":
        _check_classifier(config)
    model = _load(model_dir, family.model_class(config["model_type"], task), task)
    family.check(model.config)
    _check_finite(model)
    if task == "sequence-classification":
        require(
            model.config.num_labels >= 2,
            "The model has a single output, which makes it a regression model.",
            "Upload a classifier with at least two classes.",
        )
    return Checkpoint(model.eval(), family, task)


def _read_config(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidModelError(
            "The model folder has no config.json.", hint="Upload the config.json that belongs to the weights."
        ) from None
    except ValueError as error:
        raise InvalidModelError(
            f"config.json is not valid JSON: {error}.", hint="Upload the file as save_pretrained() wrote it."
        ) from error
    if not isinstance(config, dict):
        raise InvalidModelError("config.json is not an object.", hint="Upload the file as save_pretrained() wrote it.")
    return config


def _family(config: dict[str, Any]) -> Family:
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InvalidModelError(
            f"The architecture {model_type!r} is not supported.",
            hint=f"Supported values of model_type in config.json: {', '.join(sorted(FAMILIES))}.",
        )
    return FAMILIES[model_type]


def _check_classifier(config: dict[str, Any]) -> None:
    architectures = config.get("architectures") or []
    require(
        any(str(name).endswith("ForSequenceClassification") for name in architectures),
        f"A classification task needs a ...ForSequenceClassification architecture; config.json says {architectures}.",
        "Upload the fine-tuned classifier, or choose the task 'embedding'.",
    )
    problem = config.get("problem_type")
    require(
        problem in (None, "single_label_classification"),
        f"Problems of type {problem!r} are not supported.",
        "Upload a classifier with exactly one class for each text.",
    )


def _load(model_dir: Path, model_class: type[PreTrainedModel], task: str) -> Any:
    pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
    options: dict[str, Any] = {"add_pooling_layer": False} if task == "embedding" and pooler else {}
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    loader: Any = model_class
    try:
        model, report = loader.from_pretrained(
            model_dir,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            **options,
        )
    except Exception as error:  # the folder is a stranger's: whatever the library trips over is the folder's fault
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidModelError(
            f"The model cannot be loaded: {first_line}",
            hint="Upload config.json and model.safetensors as save_pretrained() wrote them; they must belong together.",
        ) from error
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    require(
        not missing,
        f"model.safetensors lacks {len(missing)} tensors that config.json asks for, first {', '.join(missing[:3])}.",
        "Upload weights and config.json of the same model.",
    )
    return model


def _check_finite(model: Any) -> None:
    for name, parameter in model.named_parameters():
        require(
            bool(torch.isfinite(parameter).all()),
            f"The tensor {name} contains values that are not finite.",
            "The checkpoint is damaged or its training diverged: upload another one.",
        )
