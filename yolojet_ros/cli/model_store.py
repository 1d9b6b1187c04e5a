"""The command `model-store`: versions of a model on a robot, signed, and with a way back."""

from __future__ import annotations

import argparse
from pathlib import Path
import sys

from yolojet_ros.cli.numbers import whole

STORE = '/var/lib/yolojet/models'

DESCRIPTION = """\
Keep versions of a model on a robot: signed where they are made, checked where they run,
activated in one step, and with a way back.
"""

EPILOG = """\
where models are made:
  yolojet model-store keygen fleet                       a key pair, once: fleet, fleet.pub
  yolojet model-store sign model.onnx --key fleet --version 1.2.0

on the robot:
  yolojet model-store create --trust fleet.pub           once
  yolojet model-store add https://example.com/model-1.2.0.tar
  yolojet model-store activate 1.2.0 --node /detector
  yolojet model-store rollback --node /detector
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'model-store', help='versions of a model on a robot, with a way back',
        description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title='commands', dest='action', metavar='COMMAND',
                                     required=True)
    _add_keygen(commands)
    _add_sign(commands)
    _add_create(commands)
    _add_trust(commands)
    _add_add(commands)
    _add_looking(commands)
    _add_activate(commands)
    _add_rollback(commands)
    _add_gc(commands)


def _add_keygen(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('keygen', help='make a key pair')
    parser.add_argument('file', type=Path, help='file of the private key; FILE.pub is the other')
    parser.set_defaults(run=_keygen)


def _add_sign(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('sign', help='make a bundle of a model, and sign it')
    parser.add_argument('source', type=Path, metavar='MODEL', help=(
        'an .onnx, which brings its .card.yaml along, or a folder of files with one'))
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument('--key', type=Path, help='file of the private key')
    key.add_argument('--unsigned', action='store_true',
                     help='sign nothing; robots take it with --allow-unsigned only')
    parser.add_argument('--version', required=True, help='such as 1.2.0')
    parser.add_argument('--name', help='what the model is called; default: as its file')
    parser.add_argument('--sequence', type=whole(1, 2**53 - 1), help=(
        'place in the order of all versions, which a robot accepts in rising order only; '
        'default: the seconds since 1970'))
    parser.add_argument('--with', dest='more', type=Path, action='append', default=[],
                        metavar='FILE', help='a further file of the model (repeatable)')
    parser.add_argument('--out', type=Path, help='the bundle; default: NAME-VERSION.tar here')
    parser.set_defaults(run=_sign)


def _add_create(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('create', help='make an empty store')
    _add_store(parser)
    parser.add_argument('--trust', type=Path, action='append', default=[], metavar='KEY.pub',
                        help='accept what this key signs (repeatable)')
    parser.add_argument('--group', help=(
        'group of the user that the node runs as, if that is not you: its members may confirm a '
        'version and go back, and change nothing else'))
    parser.set_defaults(run=_create)


def _add_trust(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('trust', help='accept a further key, or one no more')
    _add_store(parser)
    parser.add_argument('key', help='a .pub file; with --remove the name of a key')
    parser.add_argument('--remove', action='store_true',
                        help='accept nothing more that this key has signed')
    parser.set_defaults(run=_trust)


def _add_add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('add', help='take a version into the store')
    _add_store(parser)
    parser.add_argument('source', help='a bundle: a file, a folder, an https:// or file:// URL')
    parser.add_argument('--allow-unsigned', action='store_true',
                        help='take a bundle that nobody signed; it is shown as such for ever')
    _add_downgrade(parser)
    parser.add_argument('--allow-http', action='store_true', help='fetch without TLS')
    parser.add_argument('--max-size', type=whole(1), default=4096, metavar='MB',
                        help='largest download in MB (4096)')
    parser.add_argument('--timeout', type=whole(1, 3600), default=30, metavar='SECONDS',
                        help='give up a server that is silent for so long (30)')
    parser.set_defaults(run=_add)


def _add_looking(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('list', help='versions, what they are and how they did')
    _add_store(parser)
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=_list)
    parser = commands.add_parser('verify', help='check all signatures and files again')
    _add_store(parser)
    parser.add_argument('version', nargs='*', help='default: all')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=_verify)


def _add_activate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('activate', help='make a version the one that is used')
    _add_store(parser)
    parser.add_argument('version')
    _add_downgrade(parser)
    parser.add_argument('--build', action='store_true', help=(
        'first build its TensorRT engine, for minutes, at the lowest priority'))
    parser.add_argument('--profile', help='of the build; see "yolojet engine build"')
    _add_node(parser)
    parser.set_defaults(run=_activate)


def _add_rollback(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('rollback', help='go back to the last version that ran well')
    _add_store(parser)
    parser.add_argument('--reason', default='rolled back by hand', help='shown in the list')
    _add_node(parser)
    parser.set_defaults(run=_rollback)


def _add_gc(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'gc', help='remove old versions, none that is needed', description=(
            'Remove old versions. The active one, the one that a rollback leads to and those that '
            'a running node uses stay.'))
    _add_store(parser)
    parser.add_argument('--keep', type=whole(0), default=3, metavar='N',
                        help='keep the N newest, too (3)')
    parser.set_defaults(run=_gc)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--store', default=STORE, metavar='FOLDER', help=f'the store ({STORE})')


def _add_downgrade(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--allow-downgrade', action='store_true',
                        help='also one that is older than what is here')


def _add_node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--node', metavar='NAME',
                        help='then let this node load it, and wait for its answer')
    parser.add_argument('--timeout', type=whole(1, 86400), default=600, metavar='SECONDS',
                        help='how long to wait for the node (600)')


def _keygen(arguments: argparse.Namespace) -> int:
    from yolojet_ros.operate.model_store.keys import generate
    key = generate(arguments.file)
    print(f'{arguments.file}: the private key; keep it where models are made, and a copy')
    print(f'{arguments.file}.pub: the public key {key.fingerprint}; robots get this one')
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    from yolojet_ros.operate.model_store.disk import megabytes
    from yolojet_ros.operate.model_store.signing import make_bundle
    out = make_bundle(
        arguments.source, arguments.version, arguments.key, arguments.out, arguments.name,
        arguments.sequence, arguments.more)
    signed = 'unsigned' if arguments.unsigned else f'signed with {arguments.key}'
    print(f'{out}: version {arguments.version}, {megabytes(out.stat().st_size)}, {signed}')
    return 0


def _create(arguments: argparse.Namespace) -> int:
    from yolojet_ros.operate.model_store import ModelStore
    from yolojet_ros.operate.model_store.keys import read_public
    for path in arguments.trust:
        read_public(path)
    store = ModelStore.create(arguments.store, arguments.group)
    keys = [store.trust(path) for path in arguments.trust]
    names = ', '.join(f'{key.name} ({key.fingerprint})' for key in keys)
    print(f'{store.folder}: an empty store; trusted: {names or "no key yet"}')
    return 0


def _trust(arguments: argparse.Namespace) -> int:
    from yolojet_ros.operate.model_store import ModelStore
    store = ModelStore(arguments.store)
    if arguments.remove:
        store.distrust(arguments.key)
        print(f'{arguments.key} is trusted no more')
        return 0
    key = store.trust(Path(arguments.key))
    print(f'{key.name} ({key.fingerprint}) is trusted')
    return 0


def _add(arguments: argparse.Namespace) -> int:
    from yolojet_ros.core.errors import UserError
    from yolojet_ros.operate.model_store import ModelStore
    from yolojet_ros.operate.model_store.adding import add_bundle, working
    from yolojet_ros.operate.model_store.disk import megabytes
    from yolojet_ros.operate.model_store.keys import NoCryptography
    store = ModelStore(arguments.store)
    with working(store):
        path, fetched = _local(arguments.source), None
        if path is None:
            from yolojet_ros.operate.model_store.download import Download
            fetched = Download(arguments.source, store.incoming, arguments.max_size * 10**6,
                               arguments.timeout, arguments.allow_http)
            path = fetched.fetch(_say)
        try:
            added = add_bundle(store, path, _say, arguments.allow_unsigned,
                               arguments.allow_downgrade)
        except NoCryptography:
            raise
        except UserError:
            if fetched is not None:  # it is whole, so the next try would get the same
                fetched.discard()
            raise
        if fetched is not None:
            fetched.discard()
    manifest = added.manifest
    if not added.new:
        print(f'{manifest.version} is in the store already, and whole')
        return 0
    signed = f'signed by {added.signed_by}' if added.signed_by else 'UNSIGNED'
    print(f'{manifest.version}: {manifest.name}, {manifest.task or "not looked into"}, '
          f'{len(manifest.classes)} classes, {megabytes(manifest.size)}, {signed}')
    return 0


def _local(source: str):
    """Return the path of a file or a file:// URL, None for what is to be fetched."""
    from urllib.parse import unquote, urlsplit
    from yolojet_ros.core.errors import UserError
    if '://' not in source:
        return Path(source)
    parts = urlsplit(source)
    if parts.scheme != 'file':
        return None
    if parts.netloc not in ('', 'localhost'):
        raise UserError(f'{source} names another machine; file:///PATH is expected')
    return Path(unquote(parts.path))


def _list(arguments: argparse.Namespace) -> int:
    from yolojet_ros.cli import model_store_list
    from yolojet_ros.operate.model_store import ModelStore
    return model_store_list.print_list(ModelStore(arguments.store), arguments.json)


def _verify(arguments: argparse.Namespace) -> int:
    from yolojet_ros.cli import model_store_list
    from yolojet_ros.operate.model_store import ModelStore
    return model_store_list.print_verification(
        ModelStore(arguments.store), arguments.version, arguments.json)


def _activate(arguments: argparse.Namespace) -> int:
    from yolojet_ros.operate.model_store import ModelStore
    from yolojet_ros.operate.model_store.adding import working
    store = ModelStore(arguments.store)
    if arguments.build:
        from yolojet_ros.operate.model_store.building import build_engine
        with working(store):
            print(f'built {build_engine(store, arguments.version, arguments.profile)}')
    before = store.states.read()
    model = store.activate(arguments.version, arguments.allow_downgrade)
    if before.active == model.version:
        print(f'{model.version} is active already')
    else:
        earlier = f'; before: {before.active}' if before.active else ''
        print(f'{model.version} is active{earlier}')
    if arguments.version in before.failed:
        _say(f'it was given up before: {before.failed[arguments.version]}')
    return _tell(arguments)


def _rollback(arguments: argparse.Namespace) -> int:
    from yolojet_ros.operate.model_store import ModelStore
    store = ModelStore(arguments.store)
    before = store.states.read().active
    model = store.rollback(arguments.reason)
    print(f'{model.version} is active again; given up: {before}')
    return _tell(arguments)


def _tell(arguments: argparse.Namespace) -> int:
    if arguments.node is None:
        print('a running node takes it on "ros2 service call /detector/load_model '
              'std_srvs/srv/Trigger", or with --node /detector; any node at its next start')
        return 0
    from yolojet_ros.cli.model_store_node import load_model
    print(load_model(arguments.node, arguments.timeout, _say))
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    from yolojet_ros.operate.model_store import ModelStore
    from yolojet_ros.operate.model_store.collecting import collect
    found = collect(ModelStore(arguments.store), arguments.keep)
    print(f'removed: {", ".join(found.removed) or "nothing"}')
    if found.used:
        print(f'old, but used by a running node: {", ".join(found.used)}')
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
