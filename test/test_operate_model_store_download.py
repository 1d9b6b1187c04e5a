"""Fetching a bundle from a real server that breaks off, changes its file, lies, or redirects."""

import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import ipaddress
import os
import ssl
import threading

import pytest
from store_samples import killed

from yolojet_ros.core.errors import RunFailed, UserError
from yolojet_ros.operate.model_store.download import Download

_BODY = os.urandom(300_000)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        self.server.asked.append((self.headers.get('Range'), self.headers.get('If-Range')))
        try:
            getattr(self, 'get_' + self.path.strip('/').split('/')[0])()
        except ConnectionError:  # whoever asked has enough
            self.close_connection = True

    def get_file(self, cut=None, tag='"1"', body=_BODY, length=True):
        start, code = 0, 200
        asked = self.headers.get('Range')
        if asked and self.headers.get('If-Range') == tag and tag is not None:
            start, code = int(asked[6:-1]), 206
            if start >= len(body):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(body)}')
                self.send_header('Content-Length', '0')
                self.end_headers()
                return
        self.send_response(code)
        if length:
            self.send_header('Content-Length', str(len(body) - start))
        if tag is not None:
            self.send_header('ETag', tag)
        if code == 206:
            self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        self.end_headers()
        self.wfile.write(body[start:cut])
        self.close_connection = cut is not None or not length

    def get_cut(self):
        self.get_file(cut=100_000 * len(self.server.asked))

    def get_changed(self):
        first = len(self.server.asked) == 1
        self.get_file(100_000 if first else None, '"1"' if first else '"2"',
                      _BODY if first else _BODY[::-1])

    def get_shorter(self):
        first = len(self.server.asked) == 1
        self.get_file(100_000 if first else None, body=_BODY if first else _BODY[:50_000])

    def get_untagged(self):
        self.get_file(100_000 if len(self.server.asked) == 1 else None, None)

    def get_weak(self):
        self.get_file(100_000 if len(self.server.asked) == 1 else None, 'W/"1"')

    def get_endless(self):
        self.get_file(length=False)

    def get_liar(self):
        self.send_response(206 if self.headers.get('Range') else 200)
        self.send_header('Content-Length', str(len(_BODY)))
        self.send_header('ETag', '"1"')
        self.send_header('Content-Range', f'bytes 5-{len(_BODY) - 1}/{len(_BODY)}')
        self.end_headers()
        self.wfile.write(_BODY[:1000])
        self.close_connection = True

    def get_huge(self):
        self.send_response(200)
        self.send_header('Content-Length', str(10**15))
        self.end_headers()
        self.close_connection = True

    def get_missing(self):
        self.send_error(404)

    def get_silent(self):
        self.server.stop.wait(20)
        self.close_connection = True

    def get_to(self):
        self.send_response(302)
        self.send_header('Location', self.server.target)
        self.send_header('Content-Length', '0')
        self.end_headers()


def _serve(context=None):
    server = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    server.daemon_threads = True
    server.asked, server.target, server.stop = [], '', threading.Event()
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    server.base = f'http{"s" if context else ""}://127.0.0.1:{server.server_address[1]}'
    return server


@pytest.fixture
def server():
    server = _serve()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


def _get(server, path, folder, most=10**6, **options):
    return Download(f'{server.base}/{path}', folder, most, allow_http=True, **options)


def _fetched(download):
    return download.fetch(print).read_bytes()


def test_goes_on_where_it_broke_off(server, tmp_path):
    for _ in range(2):
        with pytest.raises(RunFailed, match='run the same command again'):
            _get(server, 'cut', tmp_path).fetch(print)
    assert _fetched(_get(server, 'cut', tmp_path)) == _BODY
    assert server.asked == [
        (None, None), ('bytes=100000-', '"1"'), ('bytes=200000-', '"1"')]
    # It is whole, which the server says when it is asked for more; then nothing is left of it.
    download = _get(server, 'cut', tmp_path)
    assert _fetched(download) == _BODY and server.asked[3:] == [('bytes=300000-', '"1"')]
    download.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('path, result, asked', [
    ('changed', _BODY[::-1], ('bytes=100000-', '"1"')),
    ('untagged', _BODY, (None, None)), ('weak', _BODY, (None, None))])
def test_begins_anew_where_it_cannot_go_on(server, tmp_path, path, result, asked):
    with pytest.raises(RunFailed):
        _get(server, path, tmp_path).fetch(print)
    assert _fetched(_get(server, path, tmp_path)) == result
    assert server.asked[1] == asked


def test_a_server_that_lies(server, tmp_path):
    with pytest.raises(RunFailed):
        _get(server, 'shorter', tmp_path).fetch(print)
    with pytest.raises(RunFailed, match='another file than before'):
        _get(server, 'shorter', tmp_path).fetch(print)
    assert _fetched(_get(server, 'shorter', tmp_path)) == _BODY[:50_000]
    server.asked.clear()
    for _ in range(2):
        with pytest.raises(RunFailed):
            _get(server, 'liar', tmp_path).fetch(print)
    assert server.asked[1][0] == 'bytes=1000-'
    with pytest.raises(RunFailed):
        _get(server, 'liar', tmp_path).fetch(print)
    assert server.asked[2] == (None, None)


def test_limits(server, tmp_path):
    for path, most, words in (('file', 299_999, 'max-size'), ('endless', 299_999, 'max-size'),
                              ('huge', 2 * 10**15, 'are needed; make room'),
                              ('missing', 10**6, '404')):
        with pytest.raises(UserError, match=words):
            _get(server, path, tmp_path, most).fetch(print)
    with pytest.raises(RunFailed, match='timed out'):
        _get(server, 'silent', tmp_path, timeout=0.2).fetch(print)
    assert _fetched(_get(server, 'endless', tmp_path, 300_000)) == _BODY


@pytest.mark.parametrize('url', [
    'http://example.com/x', 'ftp://example.com/x', 'https:///x', 'https://[/x', 'HTTPS', ''])
def test_only_https_unless_asked(url, tmp_path):
    with pytest.raises(UserError, match='https:// URL is expected'):
        Download(url, tmp_path, 1)


def test_redirects_lead_nowhere_else(server, tmp_path):
    server.target = '/file'
    assert _fetched(_get(server, 'to/a', tmp_path)) == _BODY
    for server.target in ('file:///etc/passwd', 'ftp://127.0.0.1/x'):
        with pytest.raises(UserError, match='URL is expected|not allowed'):
            _get(server, 'to/b', tmp_path).fetch(print)
    server.target = 'http://[::1'
    with pytest.raises(UserError, match='no URL that can be fetched|URL is expected'):
        _get(server, 'to/b', tmp_path).fetch(print)
    server.target = '/to/c'  # for ever
    with pytest.raises(UserError, match='302'):
        _get(server, 'to/c', tmp_path).fetch(print)


def test_killed_at_every_step(server, tmp_path):
    for change in range(20):
        folder = tmp_path / str(change)
        folder.mkdir()
        was_killed = killed(lambda: _get(server, 'file', folder).fetch(print), change)
        assert _fetched(_get(server, 'file', folder)) == _BODY
        if not was_killed:
            break
    assert not was_killed and change >= 3


@pytest.fixture
def certificate(tmp_path):
    """Return a file with a certificate of 127.0.0.1 and its key."""
    x509 = pytest.importorskip('cryptography.x509')
    from cryptography.hazmat.backends import default_backend
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    key = ec.generate_private_key(ec.SECP256R1(), default_backend())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'here')])
    now = datetime.datetime(2020, 1, 1)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now, now + datetime.timedelta(36500)).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address('127.0.0.1'))]), False
    ).sign(key, hashes.SHA256(), default_backend())
    pem = serialization.Encoding.PEM
    path = tmp_path / 'certificate.pem'
    path.write_bytes(certificate.public_bytes(pem) + key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path


def test_https_from_a_server_that_is_known_only(certificate, server, tmp_path, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = _serve(context)
    try:
        def get(path):
            return Download(f'{secure.base}/{path}', tmp_path, 10**6).fetch(print)
        with pytest.raises(RunFailed, match='CERTIFICATE_VERIFY_FAILED'):
            get('file')
        monkeypatch.setenv('SSL_CERT_FILE', str(certificate))
        assert get('file').read_bytes() == _BODY
        secure.target = f'{server.base}/file'  # without TLS
        with pytest.raises(UserError, match='https:// URL is expected'):
            get('to')
        assert server.asked == []
    finally:
        secure.shutdown()
        secure.server_close()
