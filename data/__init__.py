"""Real data: reading, splitting, batching and decoding. A new data set is one file with a `data.real.Dataset`."""

import hashlib
from collections.abc import Iterable

import numpy as np

from support.errors import DataError as DataError


def checksum(arrays: Iterable[np.ndarray]) -> str:
    """The SHA-256 of arrays of numbers: of their values, shapes and order, whatever their type."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array, np.float64 if array.dtype.kind == "f" else np.int64).data)
    return digest.hexdigest()
