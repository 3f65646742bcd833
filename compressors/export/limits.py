"""What a file can hold. Light: no torch."""

from compressors.description import Anatomy
from infra.errors import InvalidModelError

ONE_FILE_BYTES = 1536 << 20
"""Weights that ``torch.onnx.export`` still writes into the ONNX file itself; with more it puts them beside it. The file
of one message ends at 2 GiB whoever writes it, so that a second file would have to travel with every model."""

_FLOAT_BYTES = 4


def require_one_file(anatomy: Anatomy) -> None:
    """Check that the dense model in float32, which every candidate is compared with, fits into one ONNX file.

    Raises:
        InvalidModelError: Its weights take more than :data:`ONE_FILE_BYTES`.
    """
    size = _FLOAT_BYTES * anatomy.parameters
    if size > ONE_FILE_BYTES:
        raise InvalidModelError(
            f"The model has {size / 2**30:.2f} GiB of weights in float32; jobs on devices that open ONNX files take at "
            f"most {ONE_FILE_BYTES / 2**30:.2f} GiB.",
            hint="Use a smaller model of the family (base instead of large), or a device that opens torch models.",
        )
