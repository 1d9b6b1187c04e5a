"""
The store: versions of a model, which one is active, and the way back.

    STORE/store.json     marks it
    STORE/keys/          trusted public keys
    STORE/versions/V/    a version, never changed (an engine may be built beside its model)
    STORE/incoming/      what is being fetched, unpacked, built or removed
    STORE/state/current  the state; the only place where a node writes
    STORE/active         link to the active version, for programs that know no more

What becomes visible does so by one rename: a version by that of its folder, a state (active
version, what came before, tries) by that of the link `current`.
"""

from __future__ import annotations

from dataclasses import replace
import json
import os
from pathlib import Path
import shutil
from typing import Collection, Dict, List, Optional, Union

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import held_folder, home_path, read_text
from yolojet_ros.operate.model_store.disk import (
    remove, scratch, sync_folder, write_file, writing)
from yolojet_ros.operate.model_store.keys import (
    NoCryptography, PublicKey, read_public, read_trusted, SUFFIX)
from yolojet_ros.operate.model_store.manifest import check_version
from yolojet_ros.operate.model_store.state import Past, State, StateFolder
from yolojet_ros.operate.model_store.stored_model import StoredModel
from yolojet_ros.operate.model_store.verification import (
    read_manifest, Verified, verified)

MOST_TRIES = 3
_MARK, _FORMAT = 'store.json', {'format': 'yolojet-model-store-1'}
_FOLDERS, _LINK = ('versions', 'incoming', 'keys', 'state'), 'active'
_CREATE = 'make one with "yolojet model-store create --store FOLDER --trust KEY.pub"'


class ModelStore:
    """
    A store in a folder.

    :raises UserError: if the folder is no store.
    """

    def __init__(self, folder: Union[str, Path]) -> None:
        self.folder = home_path(folder).absolute()
        self.versions = self.folder / 'versions'
        self.incoming = self.folder / 'incoming'
        self.keys = self.folder / 'keys'
        self.states = StateFolder(self.folder / 'state')
        try:
            if json.loads(read_text(self.folder / _MARK, 1000)) != _FORMAT:
                raise ValueError(f'its {_MARK} is of another kind')
        except ValueError as error:
            raise UserError(f'{self.folder} is no model store ({error}); {_CREATE}') from None

    @classmethod
    def create(cls, folder: Path, group: Optional[str] = None) -> ModelStore:
        """
        Make a store; what was begun and broken off is made complete.

        :param group: whose members may write the state, as the user of the node must
        :raises UserError: if it is there already, or cannot be made.
        """
        folder = home_path(folder).absolute()
        mark = folder / _MARK
        if os.path.lexists(mark):
            raise UserError(f'{folder} is a model store already; add keys with "trust"')
        if folder.exists() and set(os.listdir(folder)) - {*_FOLDERS, _LINK, '.' + _MARK}:
            raise UserError(f'{folder} holds other things; name a folder of its own')
        with writing(folder):
            for path in (folder, *(folder / name for name in _FOLDERS)):
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o755)
            if group is not None:
                try:
                    shutil.chown(folder / 'state', group=group)
                except LookupError:
                    raise UserError(f'there is no group {group}; make it with '
                                    f'"sudo groupadd {group}"') from None
                # New files are of the group, too.
                (folder / 'state').chmod(0o2775)
            if not os.path.lexists(folder / _LINK):
                os.symlink('state/current/model', folder / _LINK)
            temporary = folder / ('.' + _MARK)
            if temporary.exists():
                temporary.unlink()
            write_file(temporary, json.dumps(_FORMAT).encode())
            os.replace(temporary, mark)
            sync_folder(folder)
        return cls(folder)

    def trust(self, path: Path) -> PublicKey:
        """
        Accept what a key signs from now on.

        :raises UserError: if it is no public key, or another one has its name.
        """
        key = read_public(path)
        if key.fingerprint in self.trusted():
            return self.trusted()[key.fingerprint]
        target = self.keys / (key.name + SUFFIX)
        if os.path.lexists(target):
            raise UserError(f'another key called {key.name} is trusted already; rename {path}')
        with held_folder(self.incoming), writing(self.keys):
            folder = scratch(self.incoming, 'add')
            write_file(folder / target.name, path.read_bytes())
            os.rename(folder / target.name, target)
            sync_folder(self.keys)
            remove(folder)
        return key

    def distrust(self, name: str) -> None:
        """
        Accept nothing more that a key has signed, what is in the store included.

        :raises UserError: if there is no such key.
        """
        if name not in [key.name for key in self.trusted().values()]:
            raise UserError(f'no key called {name} is trusted; "list" shows those that are')
        with writing(self.keys):
            (self.keys / (name + SUFFIX)).unlink()
            sync_folder(self.keys)

    def trusted(self) -> Dict[str, PublicKey]:
        """Return the trusted keys by fingerprint."""
        return read_trusted(self.keys)

    def names(self) -> List[str]:
        """Return all versions, by sequence number; damaged ones come first."""
        def order(name: str):
            try:
                return read_manifest(self.versions / name).sequence, name
            except UserError:
                return 0, name
        return sorted((path.name for path in self.versions.iterdir()), key=order)

    def check(self, version: str) -> Verified:
        """
        Check signature and files of a version.

        :raises UserError: naming what is wrong.
        """
        try:
            check_version(version)  # it may be a path that leaves the store
        except ValueError as error:
            raise UserError(f'{error}; "yolojet model-store list" shows those that are here'
                            ) from None
        return verified(self.versions / version, self.trusted())

    def highest(self, without: Collection[str] = ()) -> int:
        """
        Return the largest sequence number that ever was in the store.

        :param without: versions that are not looked at, as they are to be removed
        """
        found = [self.states.read().highest]
        for name in set(self.names()).difference(without):
            try:
                found.append(read_manifest(self.versions / name).sequence)
            except UserError:
                pass
        return max(found)

    def active(self) -> StoredModel:
        """
        Return the active version, its signature and files checked.

        :raises UserError: if none is active, or it is damaged.
        """
        return self._stored(self.states.read())

    def start_trial(self) -> StoredModel:
        """
        Return what a node is to load now, and count a try if no node has confirmed it yet.

        A version that was tried three times without being confirmed, or that is damaged, is
        given up in favour of the last one that ran well, if there is one.

        :raises UserError: if none is active, all are damaged, or the try cannot be written.
        """
        with self.states.locked():
            state = self.states.read()
            if not state.confirmed and state.tries >= MOST_TRIES:
                state = self._back(state, (
                    f'the process ended {state.tries} times before its first minute was over')
                ) or state
            if state.active is None:
                raise _nothing_active(self.folder)
            try:
                found = self.check(state.active)
            except NoCryptography:
                raise
            except UserError as error:
                back = self._back(state, str(error))
                if back is None:
                    raise
                state = back
                found = self.check(state.active)
            if not state.confirmed:
                state = replace(state, tries=state.tries + 1)
                self.states.write(state)
            return self._stored(state, found)

    def confirm(self, version: str) -> None:
        """
        Remember that the active version ran well for its first minute.

        :raises UserError: if another one is active, or it cannot be written.
        """
        with self.states.locked():
            state = self.states.read()
            _check_active(state, version)
            if not state.confirmed:
                self.states.write(state.confirming())

    def end_trial(self, version: str) -> None:
        """
        Take back a try that `start_trial` counted: the node was told to end, nothing failed.

        :raises UserError: if it cannot be written.
        """
        with self.states.locked():
            state = self.states.read()
            if state.active == version and not state.confirmed and state.tries:
                self.states.write(replace(state, tries=state.tries - 1))

    def give_up(self, version: str, reason: str) -> StoredModel:
        """
        Go back to the version before, the last that ran well, and return it.

        :param reason: why, for those who read the list of versions
        :raises UserError: if another version is active, there is none to go back to, or it
            cannot be written; the version stays active then.
        """
        with self.states.locked():
            state = self.states.read()
            _check_active(state, version)
            back = self._back(state, reason)
            if back is None:
                self.states.write(state.failing(version, reason))
                raise _no_way_back(version)
            return self._stored(back)

    def rollback(self, reason: str = 'rolled back by hand') -> StoredModel:
        """
        Go back from whatever is active to the last version that ran well, and return it.

        :raises UserError: if there is none to go back to; nothing has changed then.
        """
        with self.states.locked():
            state = self.states.read()
            if state.active is None:
                raise _nothing_active(self.folder)
            back = self._back(state, reason)
            if back is None:
                raise _no_way_back(state.active)
            return self._stored(back)

    def activate(self, version: str, allow_downgrade: bool = False) -> StoredModel:
        """
        Make a version the active one, to be confirmed by a node.

        :param allow_downgrade: also one that is older than the active one
        :raises UserError: if it is not there, damaged, or older; the state is unchanged then.
        """
        with self.states.locked():
            state = self.states.read()
            found = self.check(version)
            if state.active == version:
                return self._stored(state)
            if state.active is not None and not allow_downgrade:
                self._check_newer(found, state.active)
            state = state.activated(version)
            self.states.write(state)
            return self._stored(state, found)

    def _check_newer(self, found: Verified, active: str) -> None:
        try:
            before = read_manifest(self.versions / active)
        except UserError:  # damaged: everything is better
            return
        if found.manifest.sequence < before.sequence:
            raise UserError(
                f'{found.manifest.version} (sequence {found.manifest.sequence}) is older than the '
                f'active {active} (sequence {before.sequence}); use "rollback" to go back, or '
                '--allow-downgrade')

    def _back(self, state: State, reason: str) -> Optional[State]:
        """Write and return the state with a whole version before active; None without one."""
        for past in state.ways_back():
            if self._is_whole(past):
                result = state.gone_back(past, reason)
                self.states.write(result)
                return result
        return None

    def _is_whole(self, past: Past) -> bool:
        try:
            self.check(past.version)
        except NoCryptography:
            raise
        except UserError:
            return False
        return True

    def _stored(self, state: State, found: Optional[Verified] = None) -> StoredModel:
        """Return the active version of a state, checked unless the caller has done that."""
        if state.active is None:
            raise _nothing_active(self.folder)
        found = found or self.check(state.active)
        return StoredModel.held(
            found.manifest, self.versions / state.active, found.signed_by, state.confirmed,
            state.tries, state.went_back)


def _check_active(state: State, version: str) -> None:
    if state.active != version:
        raise UserError(f'{version} is not the active version, {state.active or "none"} is; load '
                        'that one')


def _no_way_back(version: str) -> UserError:
    return UserError(f'there is no whole version before {version} to go back to; add another one '
                     'and activate it')


def _nothing_active(folder: Path) -> UserError:
    return UserError(f'no version is active in {folder}; activate one with "yolojet model-store '
                     'activate VERSION"')
