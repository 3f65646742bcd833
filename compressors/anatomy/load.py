"""Read a Hugging Face folder into the neutral network."""

from pathlib import Path

from compressors.anatomy.checkpoint import open_checkpoint
from compressors.anatomy.pooling import read_pooling
from compressors.network import EncoderNetwork


def load_network(model_dir: Path, task: str) -> EncoderNetwork:
    """Read the encoder and its task head.

    Args:
        model_dir: folder with ``config.json`` and ``model.safetensors``; for embeddings optionally ``modules.json``
            and ``1_Pooling/config.json``.
        task: ``sequence-classification`` | ``embedding``.

    Raises:
        InvalidModelError: the folder is damaged, or its architecture is not supported or does not fit the task.
    """
    checkpoint = open_checkpoint(model_dir, task)
    model, family = checkpoint.model, checkpoint.family
    encoder = family.encoder(model)
    embeddings = family.embeddings(encoder, model.config)
    classifies = task == "sequence-classification"
    return EncoderNetwork(
        model_type=model.config.model_type,
        embeddings=embeddings,
        layers=family.layers(encoder, model.config),
        head=family.classification_head(model) if classifies else read_pooling(model_dir),
        labels=[str(model.config.id2label[index]) for index in range(model.config.num_labels)] if classifies else [],
        max_sequence_length=int(embeddings.position.shape[0]),
    )
