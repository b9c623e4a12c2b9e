"""Section 1 of docs/vault-format.md: derivation, AEAD, padding, which of two copies is newer."""

import struct

import argon2.low_level
import cbor2
from Cryptodome.Cipher import ChaCha20, ChaCha20_Poly1305
from Cryptodome.Hash import HMAC, SHA256
from Cryptodome.Protocol.KDF import HKDF

NONCE = 24
TAG = 16
OVERHEAD = NONCE + TAG
ONCE = 255


class Damaged(Exception):
    """Bytes that the format does not allow."""


def root_of(passphrase, salt, memory_kib=262144, passes=3, lanes=4):
    """`Root`: Argon2id 0x13. The cost belongs to the format; other values are for containers made by tests."""
    return argon2.low_level.hash_secret_raw(
        secret=passphrase,
        salt=salt,
        time_cost=passes,
        memory_cost=memory_kib,
        parallelism=lanes,
        hash_len=32,
        type=argon2.low_level.Type.ID,
        version=0x13,
    )


def hkdf(key, info, length=32):
    """HKDF-SHA-256 with an empty salt."""
    return HKDF(key, length, b"", SHA256, context=info)


def mac_is(key, tag, *parts):
    """Whether `tag` is the HMAC-SHA-256 of the parts."""
    mac = HMAC.new(key, digestmod=SHA256)
    for part in parts:
        mac.update(part)
    try:
        mac.verify(tag)
    except ValueError:
        return False
    return True


def place(index, copy=ONCE):
    """The associated data of what is sealed in the container."""
    return struct.pack("<QB", index, copy)


def open_sealed(key, associated, sealed):
    """The plaintext of `nonce | ciphertext | tag`, or None."""
    if len(sealed) < OVERHEAD:
        return None
    cipher = ChaCha20_Poly1305.new(key=key, nonce=sealed[:NONCE])
    cipher.update(associated)
    try:
        return cipher.decrypt_and_verify(sealed[NONCE:-TAG], sealed[-TAG:])
    except ValueError:
        return None


def keystream_xor(key, nonce, data):
    """XChaCha20 from block 0."""
    return ChaCha20.new(key=key, nonce=nonce).decrypt(data)


def unpad(padded):
    """The CBOR map of `pad(map, n)`."""
    (length,) = struct.unpack_from("<H", padded)
    body, rest = padded[2 : 2 + length], padded[2 + length :]
    if len(body) != length or any(rest):
        raise Damaged("padding")
    return cbor2.loads(body)


def newer(generation_a, generation_b, bits):
    """0 if copy A is the newer one, 1 if it is B: the difference as a signed number of so many bits."""
    difference = (generation_b - generation_a) % (1 << bits)
    return 1 if 0 < difference < 1 << (bits - 1) else 0
