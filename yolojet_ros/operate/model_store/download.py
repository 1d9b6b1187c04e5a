"""Fetch a bundle by https, going on where the last try broke off."""

from __future__ import annotations

import hashlib
from http.client import HTTPException, HTTPResponse
import json
import os
from pathlib import Path
import re
import time
from typing import Any, Callable, Optional
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import build_opener, HTTPRedirectHandler, Request

from yolojet_ros.core.errors import RunFailed, UserError
from yolojet_ros.core.files import atomic_path, read_text
from yolojet_ros.core.text import one_line, shown
from yolojet_ros.operate.model_store.disk import BLOCK, megabytes, need_room, writing

_RANGE = re.compile(r'bytes (\d{1,18})-(\d{1,18})/(\d{1,18})')
_REPORT_SECONDS = 5.0
Report = Callable[[str], None]


class Download:
    """
    A file that is fetched into a folder, under a name that its URL decides.

    :param url: https, or http where that is allowed
    :param most: bytes that it may have
    :param timeout: seconds without a byte after which it is given up
    :raises UserError: if the URL is of another kind.
    """

    def __init__(self, url: str, folder: Path, most: int, timeout: float = 30.0,
                 allow_http: bool = False) -> None:
        self._schemes = ('https', 'http') if allow_http else ('https',)
        self._check_scheme(url)
        self._url, self._folder, self._most, self._timeout = url, folder, most, timeout
        name = 'fetch-' + hashlib.sha256(url.encode()).hexdigest()[:16]
        self.path = folder / (name + '.part')
        self._facts = folder / (name + '.json')

    def fetch(self, report: Report) -> Path:
        """
        Return the complete file.

        :param report: gets progress, a line at a time
        :raises RunFailed: if it broke off; the same call goes on from there.
        :raises UserError: if the server refuses, it is too large, or the disk is full.
        """
        start, validator = self._begun()
        headers = {'User-Agent': 'yolojet', 'Accept-Encoding': 'identity'}
        if start:
            headers.update({'Range': f'bytes={start}-', 'If-Range': validator})
        try:
            with build_opener(_Redirect(self._check_scheme)).open(
                    Request(self._url, headers=headers), timeout=self._timeout) as response:
                self._take(response, start, report)
        except HTTPError as error:
            if error.code == 416 and start:  # there is nothing behind what is here
                return self._whole(error)
            raise self._refused(f'the server answers {error.code} {one_line(error.reason, 100)}'
                                ) from None
        except ValueError as error:  # of the URL, or of one that the server leads to
            raise self._refused(f'it is no URL that can be fetched ({one_line(str(error), 100)})'
                                ) from None
        except (HTTPException, OSError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise RunFailed(
                f'{shown(self._url, 200)} cannot be fetched ({one_line(str(reason), 200)}; '
                f'{megabytes(self._size())} are here); run the same command again to go on'
            ) from error
        return self.path

    def discard(self) -> None:
        """Remove what was fetched."""
        for path in (self.path, self._facts):
            if os.path.lexists(path):
                path.unlink()

    def _begun(self) -> Any:
        """Return (bytes that are here, what tells the server of which file), (0, '') if unsure."""
        try:
            facts = json.loads(read_text(self._facts, 4096))
            validator = facts['validator'] if isinstance(facts, dict) else ''
        except (ValueError, KeyError, RecursionError):
            return 0, ''
        usable = isinstance(validator, str) and validator.isascii() and validator.isprintable()
        return (self._size(), validator) if usable and validator else (0, '')

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def _take(self, response: HTTPResponse, start: int, report: Report) -> None:
        total = self._total(response, start)
        if response.status != 206:
            start = 0
        if (total or 0) > self._most:
            raise self._refused(f'it has {megabytes(total or 0)}, more than the '
                                f'{megabytes(self._most)} that --max-size allows')
        with writing(self._folder):
            need_room(self._folder, (total or 0) - start)
            # A part of another file is gone before the note says of which file it is.
            file = open(self.path, 'ab' if start else 'wb')
        with file:
            if not start:
                self._note(_validator(response))
            self._copy(response, file, start, total, report)
        if total is not None and self._size() != total:
            raise OSError(f'the connection ended after {self._size()} of {total} bytes')

    def _copy(self, response: HTTPResponse, file: Any, done: int, total: Optional[int],
              report: Report) -> None:
        reported = time.monotonic()
        while True:
            block = response.read1(BLOCK)
            if not block:
                break
            done += len(block)
            if done > self._most:
                self.discard()
                raise self._refused(f'it has more than the {megabytes(self._most)} that '
                                    '--max-size allows')
            with writing(self._folder):
                file.write(block)
                file.flush()
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                report(f'fetched {megabytes(done)}' + (f' of {megabytes(total)}' if total else ''))

    def _total(self, response: HTTPResponse, start: int) -> Optional[int]:
        """Return the size of the whole file, None if the server does not tell."""
        if response.status == 206:
            found = _RANGE.fullmatch(response.headers.get('Content-Range', ''))
            if found is None or int(found[1]) != start:
                self.discard()
                raise OSError('the server sends another part than was asked for')
            return int(found[3])
        length = response.headers.get('Content-Length', '')
        return int(length) if length.isdecimal() and len(length) < 19 else None

    def _whole(self, error: HTTPError) -> Path:
        if error.headers.get('Content-Range', '') == f'bytes */{self._size()}':
            return self.path
        self.discard()
        raise RunFailed(f'{shown(self._url, 200)} is another file than before; run the same '
                        'command again to fetch it from the beginning') from None

    def _note(self, validator: str) -> None:
        with atomic_path(self._facts) as temporary:
            temporary.write_text(json.dumps({'validator': validator}))

    def _check_scheme(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in self._schemes and bool(parts.hostname)
        except ValueError:
            usable = False
        if not usable:
            raise UserError(
                f'{shown(url, 200)} is not fetched; an https:// URL is expected (http:// with '
                '--allow-http, which lets others see and delay what you fetch)')

    def _refused(self, why: str) -> UserError:
        return UserError(f'{shown(self._url, 200)} cannot be used: {why}; check the URL')


class _Redirect(HTTPRedirectHandler):
    """Follows a server only to where we would have gone ourselves."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any,
                         newurl: str) -> Optional[Request]:
        self._check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(response: HTTPResponse) -> str:
    """Return what is the same as long as the file is, to the byte; '' if nothing is."""
    tag = response.headers.get('ETag', '')
    return tag if tag.startswith('"') else ''
