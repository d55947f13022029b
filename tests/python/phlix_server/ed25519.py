"""A public key of Ed25519 from a seed (RFC 8032 s.5.1.5): the hub takes points of the curve alone."""

import hashlib

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Y = 4 * pow(5, -1, P) % P


def _x(y):
    """The even one of the two."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x % 2 == 0 else P - x


def _add(a, b):
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P)
    return x % P, y % P


def public_key(seed):
    half = bytearray(hashlib.sha512(seed).digest()[:32])
    half[0] &= 248
    half[31] = half[31] & 127 | 64
    scalar = int.from_bytes(half, "little")
    found, base = (0, 1), (_x(Y), Y)
    for bit in range(255):
        if scalar >> bit & 1:
            found = _add(found, base)
        base = _add(base, base)
    return (found[1] | (found[0] & 1) << 255).to_bytes(32, "little")
