"""Giving memory back to the operating system."""

import ctypes


def release_memory() -> None:
    """Give back what is free inside the heap.

    The C library keeps freed blocks of up to 32 MiB for later. Numerical work leaves holes between those that are still
    in use, which new blocks of other sizes do not fill, so that a process grows from layer to layer.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; others have their own ways
    if trim is not None:
        trim(0)
