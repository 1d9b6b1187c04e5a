"""Take a version into the store: check it all, then let it appear by one rename."""

from __future__ import annotations

from contextlib import contextmanager
import os
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import held_folder
from yolojet_ros.operate.model_store.bundle import Bundle, open_bundle
from yolojet_ros.operate.model_store.checking import load_model
from yolojet_ros.operate.model_store.disk import (
    need_room, remove, scratch, sync_folder, write_file, writing)
from yolojet_ros.operate.model_store.keys import check_signature, NoCryptography
from yolojet_ros.operate.model_store.manifest import Manifest, MANIFEST, SIGNATURE
from yolojet_ros.operate.model_store.store import ModelStore

_KINDS = ('add', 'build', 'gone')  # of scratch folders
Report = Callable[[str], None]


class Added(NamedTuple):
    """What was added: its manifest, who signed it ('' for nobody), whether it is new here."""

    manifest: Manifest
    signed_by: str
    new: bool


@contextmanager
def working(store: ModelStore) -> Iterator[None]:
    """
    Hold the store for a long command, and remove what killed ones left behind.

    Nodes are not held up by it. Interrupted downloads stay, to be continued.

    :raises UserError: if another command is at work.
    """
    with held_folder(store.incoming):
        for kind in _KINDS:
            for path in store.incoming.glob(kind + '-*'):
                remove(path)
        yield


def add_bundle(
    store: ModelStore, path: Path, report: Report, allow_unsigned: bool = False,
    allow_downgrade: bool = False,
) -> Added:
    """
    Add a version from a file or a folder; the caller holds the store (`working`).

    :param report: gets what the user should know, a line at a time
    :param allow_unsigned: take a bundle that nobody has signed
    :param allow_downgrade: take one whose sequence number is below one that was here
    :raises UserError: if it is refused; nothing has changed then.
    """
    with open_bundle(path) as bundle:
        manifest = bundle.manifest
        signed_by = check_signature(
            bundle.data, bundle.signature, store.trusted(), bundle.source)
        if not signed_by and not allow_unsigned:
            raise UserError(f'{bundle.source} is not signed; sign it with "yolojet model-store '
                            'sign", or take it as it is with --allow-unsigned')
        # What is here, but not whole, is mended by the same bundle; that is no way back.
        damaged = _has_manifest(store, bundle)
        if _is_here(store, bundle, report):
            return Added(manifest, signed_by, False)
        highest = store.highest()
        if manifest.sequence < highest and not (allow_downgrade or damaged):
            raise UserError(
                f'{bundle.source} has the sequence number {manifest.sequence}, and {highest} was '
                'here already, so it is an old version (sent again by somebody?); take it all '
                'the same with --allow-downgrade')
        need_room(store.incoming, manifest.size)
        _install(store, bundle, report)
    return Added(manifest, signed_by, True)


def _has_manifest(store: ModelStore, bundle: Bundle) -> bool:
    """Return whether the manifest of a bundle is here, perhaps with damaged files."""
    try:
        return (store.versions / bundle.manifest.version / MANIFEST).read_bytes() == bundle.data
    except OSError:
        return False


def _is_here(store: ModelStore, bundle: Bundle, report: Report) -> bool:
    """
    Return whether this very version is here already, and whole.

    :raises UserError: if another one is here under the same name.
    """
    folder = store.versions / bundle.manifest.version
    if not os.path.lexists(folder):
        return False
    try:
        store.check(folder.name)
    except NoCryptography:
        raise
    except UserError as error:
        report(f'what is here is to be replaced: {error}')
        return False
    if not _has_manifest(store, bundle):
        raise UserError(f'another {folder.name} is in the store already; give the new one a '
                        'version of its own when it is signed')
    return True


def _install(store: ModelStore, bundle: Bundle, report: Report) -> None:
    folder: Optional[Path] = None
    try:
        with writing(store.folder):
            folder = scratch(store.incoming, 'add')
            bundle.extract(folder)
        note = load_model(folder / bundle.manifest.model).note
        if note:
            report(note)
        with writing(store.folder):
            write_file(folder / MANIFEST, bundle.data)
            if bundle.signature is not None:
                write_file(folder / SIGNATURE, bundle.signature)
            folder.chmod(0o755)
            sync_folder(folder)
            target = store.versions / bundle.manifest.version
            remove(target)  # damaged, if it is there
            os.rename(folder, target)
            folder = None
            sync_folder(store.versions)
    finally:
        if folder is not None:
            remove(folder)
