"""Make the keystore of SROS 2 from policies, as `ros2 security` does: DDS-Security 1.1, 9.4."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
import security_policy

pytest.importorskip('cryptography')

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.hazmat.primitives.serialization import pkcs7  # noqa: E402

_NOW = datetime.now(timezone.utc)
_BEGIN, _END = _NOW - timedelta(days=1), _NOW + timedelta(days=2)
_GOVERNANCE = """<dds><domain_access_rules><domain_rule>
<domains><id>{domain}</id></domains>
<allow_unauthenticated_participants>false</allow_unauthenticated_participants>
<enable_join_access_control>true</enable_join_access_control>
<discovery_protection_kind>ENCRYPT</discovery_protection_kind>
<liveliness_protection_kind>ENCRYPT</liveliness_protection_kind>
<rtps_protection_kind>SIGN</rtps_protection_kind>
<topic_access_rules><topic_rule><topic_expression>*</topic_expression>
<enable_discovery_protection>true</enable_discovery_protection>
<enable_liveliness_protection>true</enable_liveliness_protection>
<enable_read_access_control>true</enable_read_access_control>
<enable_write_access_control>true</enable_write_access_control>
<metadata_protection_kind>ENCRYPT</metadata_protection_kind>
<data_protection_kind>ENCRYPT</data_protection_kind>
</topic_rule></topic_access_rules></domain_rule></domain_access_rules></dds>
"""
_PERMISSIONS = """<dds><permissions><grant name="{enclave}">
<subject_name>CN={enclave}</subject_name>
<validity><not_before>{begin:%Y-%m-%dT%H:%M:%S}</not_before>
<not_after>{end:%Y-%m-%dT%H:%M:%S}</not_after></validity>
<allow_rule><domains><id>{domain}</id></domains>
<publish><topics>{publish}</topics></publish>
<subscribe><topics>{subscribe}</topics></subscribe></allow_rule>
<default>DENY</default></grant></permissions></dds>
"""
# Where ROS's graph is told; every node has it.
_GRAPH = '<topic>ros_discovery_info</topic>'


def make(folder, domain, *policies):
    """Make a keystore with the enclaves of these policies; return its folder."""
    authority, key = _certificate('authority', None, None)
    governance = _signed(_GOVERNANCE.format(domain=domain), authority, key)
    for policy in policies:
        for enclave, names in security_policy.read(policy).items():
            own, own_key = _certificate(enclave, authority, key)
            place = folder / 'enclaves' / enclave.lstrip('/')
            place.mkdir(parents=True)
            for name in ('identity_ca.cert.pem', 'permissions_ca.cert.pem'):
                (place / name).write_bytes(_pem(authority))
            (place / 'cert.pem').write_bytes(_pem(own))
            (place / 'key.pem').write_bytes(own_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption()))
            (place / 'governance.p7s').write_bytes(governance)
            (place / 'permissions.p7s').write_bytes(
                _signed(_permissions(enclave, names, domain), authority, key))
    return folder


def _permissions(enclave, names, domain):
    sent = [*_topics('rt', names['publish']), *_topics('rr', names['reply'], 'Reply'),
            *_topics('rq', names['request'], 'Request')]
    heard = [*_topics('rt', names['subscribe']), *_topics('rq', names['reply'], 'Request'),
             *_topics('rr', names['request'], 'Reply')]
    return _PERMISSIONS.format(
        enclave=enclave, domain=domain, begin=_BEGIN, end=_END,
        publish=''.join(sent) + _GRAPH, subscribe=''.join(heard) + _GRAPH)


def _topics(prefix, names, suffix=''):
    """Return what ROS's names are in DDS."""
    return [f'<topic>{prefix}{name}{suffix}</topic>' for name in sorted(names)]


def _certificate(name, authority, authority_key):
    """Return a certificate and its key, signed by the authority or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (x509.CertificateBuilder().subject_name(subject)
            .issuer_name(authority.subject if authority else subject)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(_BEGIN).not_valid_after(_END)
            .add_extension(x509.BasicConstraints(authority is None, None), critical=True)
            .sign(authority_key or key, hashes.SHA256()))
    return made, key


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def _signed(text, certificate, key):
    """Return text with its signature as S/MIME."""
    return (pkcs7.PKCS7SignatureBuilder().set_data(text.encode())
            .add_signer(certificate, key, hashes.SHA256())
            .sign(serialization.Encoding.SMIME,
                  [pkcs7.PKCS7Options.Text, pkcs7.PKCS7Options.DetachedSignature]))
