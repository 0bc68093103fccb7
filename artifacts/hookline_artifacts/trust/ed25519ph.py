"""Ed25519ph: the prehashed Ed25519 with which cosign signs, and which ``cryptography`` does not have.

It only verifies, and all that goes in is public, so nothing here has to take the same time for every input: 2 ms. What
is accepted is what RFC 8032 (5.1) makes: S below the order of the base point, every point written in the one way that
it has, and the equation without its cofactor, as ``cryptography`` verifies plain Ed25519.

https://www.rfc-editor.org/rfc/rfc8032
"""

from __future__ import annotations

import hashlib
from typing import Final

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT: Final = pow(2, (_P - 1) // 4, _P)
"""Of -1."""
_PREFIX: Final = b"SigEd25519 no Ed25519 collisions\x01\x00"
"""``dom2(1, "")``: prehashed, without a context."""
_BYTES: Final = 32

_Point = tuple[int, int, int, int]
"""In extended coordinates: X, Y, Z and T, where x = X/Z, y = Y/Z and xy = T/Z (RFC 8032, 5.1.4)."""
_ZERO: Final = (0, 1, 1, 0)


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature of 64 bytes over a message is by a public key of 32."""
    key, s = point(public), int.from_bytes(signature[_BYTES:], "little")
    if key is None or len(signature) != 2 * _BYTES or s >= _ORDER:
        return False
    r = signature[:_BYTES]
    told = hashlib.sha512(_PREFIX + r + public + hashlib.sha512(message).digest()).digest()
    k = int.from_bytes(told, "little") % _ORDER
    # R = s·B - k·A, and both products share their doublings.
    minus = (_P - key[0], key[1], 1, _P - key[3])
    addends = (_ZERO, _BASE, minus, _add(_BASE, minus))
    found = _ZERO
    for bit in range(_ORDER.bit_length() - 1, -1, -1):
        found = _add(found, found)
        which = s >> bit & 1 | (k >> bit & 1) << 1
        if which:
            found = _add(found, addends[which])
    return _written(found) == r


def point(text: bytes) -> _Point | None:
    """The point that 32 bytes are; None where they are none, or not the one way to write it (RFC 8032, 5.1.3)."""
    y = int.from_bytes(text, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if len(text) != _BYTES or y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _add(p: _Point, q: _Point) -> _Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _written(p: _Point) -> bytes:
    inverse = pow(p[2], -1, _P)
    x, y = p[0] * inverse % _P, p[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(_BYTES, "little")


_BASE: Final = point((4 * pow(5, -1, _P) % _P).to_bytes(_BYTES, "little")) or _ZERO
