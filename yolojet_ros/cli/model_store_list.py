"""`model-store list` and `verify`: what is in a store, as a table or as JSON."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Sequence

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import one_line
from yolojet_ros.operate.model_store import ModelStore
from yolojet_ros.operate.model_store.disk import megabytes
from yolojet_ros.operate.model_store.state import State
from yolojet_ros.operate.model_store.verification import read_manifest, read_version


def print_list(store: ModelStore, as_json: bool) -> int:
    """Print all versions; files are not checked. Return the exit code."""
    state = store.states.read()
    rows = [_row(store, state, name) for name in store.names()]
    keys = {key.name: print_ for print_, key in store.trusted().items()}
    if as_json:
        print(json.dumps({
            'store': str(store.folder), 'active': state.active, 'confirmed': state.confirmed,
            'tries': state.tries, 'went_back': state.went_back, 'highest': store.highest(),
            'keys': keys, 'versions': rows}, indent=1))
        return 0
    if not rows:
        print(f'{store.folder} has no version yet; "yolojet model-store add" takes one')
    width = max([7, *(len(row['version']) for row in rows)])
    if rows:
        print(f'  {"VERSION":{width}}  {"SEQUENCE":>10}  {"SIZE":>9}  {"CREATED":20}  '
              f'{"SIGNED BY":12}  STATE')
    for row in rows:
        print(f'{"*" if row["active"] else " "} {row["version"]:{width}}  '
              f'{row["sequence"] or "?":>10}  {megabytes(row["size"]):>9}  {row["created"]:20}  '
              f'{row["signed_by"] or "UNSIGNED":12}  {_words(row)}')
    print('trusted keys: ' + (', '.join(f'{name} ({item})' for name, item in keys.items())
                              or 'none'))
    return 0


def _row(store: ModelStore, state: State, name: str) -> Dict[str, Any]:
    back = [past.version for past in state.ways_back()[:1]]
    row: Dict[str, Any] = {
        'version': name, 'sequence': 0, 'size': 0, 'created': '', 'signed_by': '', 'name': '',
        'task': '', 'classes': 0, 'engine': False, 'fault': '', 'active': name == state.active,
        'previous': name in back, 'confirmed': _is_confirmed(state, name),
        'failed': state.failed.get(name, ''), 'tries': state.tries * (name == state.active)}
    try:
        manifest = read_manifest(store.versions / name)
        engine = store.versions / name / manifest.engine_names[0]
        row.update(
            sequence=manifest.sequence, size=manifest.size, name=manifest.name,
            created=one_line(manifest.created, 20), task=manifest.task,
            classes=len(manifest.classes), engine=engine.is_file(), signed_by='?')
        row['signed_by'] = read_version(store.versions / name, store.trusted()).signed_by
    except UserError as error:
        row['fault'] = str(error)
    return row


def _is_confirmed(state: State, name: str) -> bool:
    return (state.confirmed if name == state.active else
            any(past.confirmed for past in state.past if past.version == name))


def _words(row: Dict[str, Any]) -> str:
    words: List[str] = []
    if row['active']:
        words.append('active')
    if row['previous']:
        words.append('previous')
    if row['confirmed']:
        words.append('confirmed')
    elif row['active']:
        words.append(f'not confirmed ({row["tries"]} tries)')
    if row['engine']:
        words.append('engine')
    for key in ('failed', 'fault'):
        if row[key]:
            words.append(f'{key}: {row[key]}')
    return ', '.join(words) or '-'


def print_verification(store: ModelStore, versions: Sequence[str], as_json: bool) -> int:
    """Check versions with all their files; return exit code 1 where something is wrong."""
    active = store.states.read().active
    names = list(versions) or store.names()
    if active is not None and active not in names and not versions:
        names.append(active)
    results = []
    for name in names:
        try:
            found = store.check(name)
            results.append({'version': name, 'ok': True, 'signed_by': found.signed_by,
                            'fault': ''})
        except UserError as error:
            results.append({'version': name, 'ok': False, 'signed_by': '', 'fault': str(error)})
    wrong = [item for item in results if not item['ok']]
    if as_json:
        print(json.dumps({'ok': not wrong, 'versions': results}, indent=1))
    else:
        for item in results:
            signed = f'signed by {item["signed_by"]}' if item['signed_by'] else 'UNSIGNED'
            print(f'{item["version"]}: ' + (f'ok, {signed}' if item['ok'] else item['fault']))
    return 1 if wrong else 0
