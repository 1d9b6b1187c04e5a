"""Ed25519 keys: made, kept, and what they sign."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
import re
from typing import Any, Dict, NamedTuple, Optional

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path, read_text

SUFFIX = '.pub'
_MAX_BYTES = 4096
# RFC 8410: a SubjectPublicKeyInfo of Ed25519 is these bytes, then the key.
_PREFIX = bytes.fromhex('302a300506032b6570032100')
_PEM = re.compile(
    r'\s*-----BEGIN PUBLIC KEY-----\s+([\sA-Za-z0-9+/=]+)-----END PUBLIC KEY-----\s*')
_SIGNATURE = re.compile(r'ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)\n')
_NAME = re.compile('[0-9A-Za-z_][0-9A-Za-z._-]{0,63}')


class NoCryptography(UserError):
    """A signature is there, and the library that could check it is not."""


class PublicKey(NamedTuple):
    """A key that is trusted: what it is called, and its 32 bytes."""

    name: str
    raw: bytes

    @property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]


def generate(path: Path) -> PublicKey:
    """
    Write a new private key, which only this user can read, and PATH.pub beside it.

    :raises UserError: if one of them is there, or cannot be written.
    """
    public = path.with_name(path.name + SUFFIX)
    for file in (path, public):
        if os.path.lexists(file):
            raise UserError(f'{file} is there, and a key that is lost cannot be made again; name '
                            'another file')
    private = _cryptography('ed25519').Ed25519PrivateKey.generate()
    form = _cryptography('serialization')
    pem = private.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    with atomic_path(path, private=True) as temporary:
        temporary.write_bytes(pem)
    with atomic_path(public) as temporary:
        temporary.write_bytes(private.public_key().public_bytes(
            form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return read_public(public)


def read_public(path: Path) -> PublicKey:
    """
    Read a public key; needs no library.

    :raises UserError: if it is none of Ed25519.
    """
    try:
        found = _PEM.fullmatch(read_text(path, _MAX_BYTES))
        data = base64.b64decode(''.join(found[1].split())) if found else b''
        if len(data) != len(_PREFIX) + 32 or not data.startswith(_PREFIX):
            raise ValueError('it is no public key of Ed25519 in PEM')
    except (ValueError, binascii.Error) as error:
        raise UserError(f'{path} cannot be read ({error}); give the .pub file that "yolojet '
                        'model-store keygen" wrote') from None
    name = path.name[:-len(SUFFIX)] if path.name.endswith(SUFFIX) else path.name
    if not _NAME.fullmatch(name):
        raise UserError(f'{path} has a name that a key cannot have; rename it to letters, digits '
                        'and ._- only')
    return PublicKey(name, data[len(_PREFIX):])


def read_trusted(folder: Path) -> Dict[str, PublicKey]:
    """
    Return the keys of a folder by their fingerprints.

    :raises UserError: if one cannot be read.
    """
    keys = [read_public(path) for path in sorted(folder.glob('*' + SUFFIX))]
    return {key.fingerprint: key for key in keys}


def sign(data: bytes, key: Path) -> bytes:
    """
    Return the content of a signature file.

    :param key: file of the private key
    :raises UserError: if it cannot be used.
    """
    form, ed25519 = _cryptography('serialization'), _cryptography('ed25519')
    from cryptography.hazmat.backends import default_backend  # needed before version 3.1
    try:
        text = read_text(key, _MAX_BYTES)
        private = form.load_pem_private_key(text.encode(), None, default_backend())
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise ValueError('it is no key of Ed25519')
    except Exception as error:  # the library's errors have no common base
        raise UserError(
            f'{key} cannot be used to sign ({str(error)[:100]}); give the private key, without a '
            'passphrase, that "yolojet model-store keygen" wrote') from error
    raw = private.public_key().public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)
    signature = base64.b64encode(private.sign(data)).decode()
    return f'ed25519 {PublicKey("", raw).fingerprint} {signature}\n'.encode()


def check_signature(
    data: bytes, signature: Optional[bytes], trusted: Dict[str, PublicKey], source: str,
) -> str:
    """
    Return the name of the key that signed `data`, '' if nobody did.

    :param signature: content of the signature file, None if there is none
    :raises UserError: if it is signed, but not by a key of `trusted`, or not this data.
    """
    if signature is None:
        return ''
    found = _SIGNATURE.fullmatch(signature.decode('ascii', 'replace'))
    if not found:
        raise UserError(f'the signature of {source} is damaged; sign it, or copy it, again')
    key = trusted.get(found[1])
    if key is None:
        known = ', '.join(f'{item.name} ({print_})' for print_, item in trusted.items())
        raise UserError(
            f'{source} is signed by a key {found[1]} that is not trusted here (trusted: '
            f'{known or "none"}); add it with "yolojet model-store trust KEY.pub" if it is yours')
    public = _cryptography('ed25519').Ed25519PublicKey.from_public_bytes(key.raw)
    from cryptography.exceptions import InvalidSignature
    try:
        public.verify(base64.b64decode(found[2]), data)
    except InvalidSignature:
        raise UserError(f'the signature of {source} by {key.name} does not fit its manifest, so '
                        'one of them was changed; do not use it, and fetch it again') from None
    return key.name


def _cryptography(module: str) -> Any:
    """
    Return a module of the library.

    :raises NoCryptography: if it is not installed, with the command that installs it.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        from yolojet_ros.core.installing import install_command
        raise NoCryptography(
            f'signatures need the Python package cryptography, which cannot be used ({error}); '
            f'install it: {install_command("cryptography")}') from error
    return {'ed25519': ed25519, 'serialization': serialization}[module]
