"""Files that a kill cannot spoil: written aside, flushed, renamed, and checked when read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  (registers bfloat16 and friends with NumPy)
import numpy as np

_MAGIC = b"latebloom-checkpoint-1\n"


class DamagedFile(ValueError):
    """A file that is not what was written; the message names it."""


def write_atomically(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write `payload` to a temporary file beside `path`, flush it to disk, and rename it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX random keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> tuple[np.ndarray, str]:
    if is_key(leaf):
        return np.asarray(jax.random.key_data(leaf)), f"key:{jax.random.key_impl(leaf)}"
    array = np.asarray(leaf)
    if array.dtype.kind == "V":  # bfloat16 and other types that .npy does not know
        return array.view(np.uint8 if array.itemsize == 1 else np.uint16), str(array.dtype)
    return array, ""


def _from_numpy(array: np.ndarray, kind: str) -> Any:
    if kind.startswith("key:"):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=kind.removeprefix("key:"))
    return array.view(np.dtype(kind)) if kind else array


def save_arrays(path: str | os.PathLike[str], leaves: dict[str, Any], note: dict[str, Any]) -> None:
    """Write named arrays (JAX keys and bfloat16 included) and a JSON `note` to `path`, atomically."""
    arrays, kinds = {}, {}
    for name, leaf in leaves.items():
        arrays[name], kinds[name] = _to_numpy(leaf)
    buffer = io.BytesIO()
    head = json.dumps({"note": note, "kinds": kinds}).encode()
    np.savez(buffer, allow_pickle=False, **{"/head": np.frombuffer(head, np.uint8), **arrays})
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).hexdigest().encode()
    write_atomically(path, _MAGIC + digest + b"\n" + payload)


def check_is_checkpoint(path: str | os.PathLike[str]) -> None:
    """Raises `ValueError` where there is a file that was never one of `save_arrays`."""
    with contextlib.suppress(FileNotFoundError), Path(path).open("rb") as file:
        if not _MAGIC.startswith(begin := file.read(len(_MAGIC))) or not begin:
            raise ValueError(f"{path} is no checkpoint: give another path, it would be overwritten")


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_arrays` wrote: (arrays by name, note).

    Raises `DamagedFile` if a byte is missing or changed.
    """
    blob = Path(path).read_bytes()
    digest, _, payload = blob.removeprefix(_MAGIC).partition(b"\n")
    if not blob.startswith(_MAGIC) or hashlib.sha256(payload).hexdigest().encode() != digest:
        raise DamagedFile(f"{path} is damaged (its checksum does not match)")
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        head = json.loads(bytes(file["/head"]))
        leaves = {n: _from_numpy(file[n], head["kinds"][n]) for n in file.files if n != "/head"}
    return leaves, head["note"]
