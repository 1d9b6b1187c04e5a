"""Is a version that lies in the store the one that was signed?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, NamedTuple

from yolojet_ros.core.engine_card import sha256
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import shown
from yolojet_ros.operate.model_store.disk import open_file
from yolojet_ros.operate.model_store.keys import check_signature, PublicKey
from yolojet_ros.operate.model_store.manifest import Manifest, MANIFEST, MAX_BYTES, SIGNATURE

_MEND = 'add it again, which replaces it'


class Verified(NamedTuple):
    """A manifest, and the name of the trusted key that signed it, '' if nobody did."""

    manifest: Manifest
    signed_by: str


def read_version(folder: Path, trusted: Dict[str, PublicKey]) -> Verified:
    """
    Read what a version says, and whose it is; its files are not looked at.

    :param folder: called as the version
    :raises UserError: if it is not there, damaged, or signed by a key that is not trusted.
    """
    data = _read(folder, MANIFEST)
    manifest = read_manifest(folder)
    signed = os.path.lexists(folder / SIGNATURE)
    return Verified(manifest, check_signature(
        data, _read(folder, SIGNATURE) if signed else None, trusted, folder.name))


def read_manifest(folder: Path) -> Manifest:
    """
    Return what a version says of itself, whoever signed it.

    :raises UserError: if it is not there, or damaged.
    """
    manifest = Manifest.parse(_read(folder, MANIFEST), folder.name)
    if manifest.version != folder.name:
        raise UserError(f'{folder} holds version {manifest.version}; {_MEND}')
    return manifest


def verified(folder: Path, trusted: Dict[str, PublicKey]) -> Verified:
    """
    Check a version with all its files.

    :raises UserError: naming the first that is wrong.
    """
    found = read_version(folder, trusted)
    known = {MANIFEST, SIGNATURE, *found.manifest.engine_names}
    for entry in found.manifest.files:
        known.add(entry.name)
        try:
            with open_file(folder / entry.name) as file:
                size = os.fstat(file.fileno()).st_size
            same = size == entry.size and sha256(folder / entry.name) == entry.sha256
        except OSError as error:
            raise UserError(f'{entry.name} of version {folder.name} cannot be read '
                            f'({error.strerror}); {_MEND}') from None
        if not same:
            raise UserError(f'{entry.name} of version {folder.name} is damaged: it is not the '
                            f'file that the manifest lists; {_MEND}')
    odd = sorted(set(os.listdir(folder)) - known)
    if odd:  # a card file, say, would change how the model is read
        raise UserError(f'version {folder.name} holds {shown(odd[0])}, which its manifest does '
                        f'not list; {_MEND}')
    return found


def _read(folder: Path, name: str) -> bytes:
    try:
        with open_file(folder / name) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        if not folder.is_dir():
            raise UserError(f'there is no version {folder.name} in {folder.parent.parent}; '
                            '"yolojet model-store list" lists them') from None
        raise UserError(f'{name} of version {folder.name} cannot be read ({error.strerror}); '
                        f'{_MEND}') from None
