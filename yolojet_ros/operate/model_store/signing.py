"""Make a bundle of a model: look into it, describe it, sign it."""

from __future__ import annotations

from datetime import datetime, timezone
import os
from pathlib import Path
import time
from typing import List, Optional, Sequence

from yolojet_ros.core.card_file import CardFile
from yolojet_ros.core.engine_card import sha256
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import refuse_same
from yolojet_ros.operate.model_store import keys
from yolojet_ros.operate.model_store.bundle import write_bundle
from yolojet_ros.operate.model_store.checking import load_model
from yolojet_ros.operate.model_store.manifest import FileEntry, Manifest


def make_bundle(
    source: Path, version: str, key: Optional[Path], out: Optional[Path] = None,
    name: Optional[str] = None, sequence: Optional[int] = None, more: Sequence[Path] = (),
) -> Path:
    """
    Write a bundle and return its path.

    :param source: the .onnx, which brings its card file along, or a folder of files with one
    :param key: file of the private key; None makes an unsigned bundle
    :param out: the file; by default NAME-VERSION.tar here
    :param name: what the model is called; by default as its file
    :param sequence: place in the order of all versions; by default the seconds since 1970
    :param more: further files that belong to the model
    :raises UserError: if the model does not load, or a file cannot be used.
    """
    files = _files(source) + list(more)
    for path in more:
        if not path.is_file():
            raise UserError(f'no file at {path}; --with takes files')
    models = [path for path in files if path.suffix == '.onnx']
    model = source if source in models else models[0] if len(models) == 1 else None
    if model is None:
        raise UserError(f'{source} has {len(models)} .onnx files; one is expected, or give the '
                        'model itself and the others by --with')
    facts = load_model(model)
    entries = tuple(
        FileEntry(path.name, os.stat(path).st_size, sha256(path)) for path in files)
    manifest = Manifest.make(
        name or model.stem, version, int(time.time()) if sequence is None else sequence,
        datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ'), model.name, facts.task,
        facts.classes, entries)
    data = manifest.data()
    out = out or Path(f'{manifest.name}-{version}.tar')
    for path in files:
        refuse_same(path, out)
    write_bundle(out, data, keys.sign(data, key) if key is not None else None, files)
    return out


def _files(source: Path) -> List[Path]:
    """:raises UserError: if there is no model, or anything but files in a folder."""
    if source.is_dir():
        files = sorted(source.iterdir())
        odd = [path for path in files if path.is_symlink() or not path.is_file()]
        if odd:
            raise UserError(f'{odd[0]} is no plain file; a version is a folder of plain files')
        return files
    if not source.is_file():
        raise UserError(f'no model at {source}; give an .onnx file, or a folder with one')
    card = source.with_name(CardFile.name(source.name))
    return [source] + [card] * card.is_file()
