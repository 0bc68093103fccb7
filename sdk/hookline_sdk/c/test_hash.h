// SHA-256 (FIPS 180-4) and HMAC (RFC 2104), as the host has them, for hookline_test.h.

#ifndef HOOKLINE_TEST_HASH_H
#define HOOKLINE_TEST_HASH_H

static uint32_t hl_test_turn(uint32_t word, int by) { return word >> by | word << (32 - by); }

// The first 32 bits of the fractional part of a root of a prime. Integer arithmetic, so that no rounding counts.
static uint32_t hl_test_root(uint32_t prime, int power) {
    // The largest r with r**power <= prime * 2**(32 * power); its low 32 bits are the fraction's.
    unsigned __int128 target = (unsigned __int128)prime;
    uint64_t root = 0;
    for (int bit = 35; bit >= 0; bit--) {
        uint64_t next = root | 1ull << bit;
        bool fits;
        if (power == 2) {
            fits = (unsigned __int128)next * next <= target << 64;
        } else {
            // next**3 <= prime * 2**96, without overflow: divided by 2**32 twice, rounded up.
            unsigned __int128 square = (unsigned __int128)next * next;
            unsigned __int128 high = (square >> 32) * next, low = (square & 0xffffffff) * next;
            unsigned __int128 cube = high + (low >> 32);  // next**3 >> 32, exact but for what is below
            bool rest = (low & 0xffffffff) != 0;
            fits = cube < target << 64 || (cube == target << 64 && !rest);
        }
        if (fits) root = next;
    }
    return (uint32_t)root;
}

static void hl_test_primes(uint32_t primes[64]) {
    size_t count = 0;
    for (uint32_t n = 2; count < 64; n++) {
        bool prime = true;
        for (size_t i = 0; i < count && prime; i++) prime = n % primes[i] != 0;
        if (prime) primes[count++] = n;
    }
}

static void hl_test_block(uint32_t state[8], const uint32_t constants[64], const uint8_t block[64]) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (hl_test_turn(a, 7) ^ hl_test_turn(a, 18) ^ a >> 3) +
               (hl_test_turn(b, 17) ^ hl_test_turn(b, 19) ^ b >> 10);
    }
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t e = v[4], a = v[0];
        uint32_t first = v[7] + (hl_test_turn(e, 6) ^ hl_test_turn(e, 11) ^ hl_test_turn(e, 25)) +
                         ((e & v[5]) ^ (~e & v[6])) + constants[i] + w[i];
        uint32_t second = (hl_test_turn(a, 2) ^ hl_test_turn(a, 13) ^ hl_test_turn(a, 22)) +
                          ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += first, v[0] = first + second;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

// Of two texts, one behind the other.
static void hl_test_sha256(hl_str head, hl_str tail, uint8_t sum[32]) {
    uint32_t primes[64], constants[64], state[8];
    hl_test_primes(primes);
    for (int i = 0; i < 64; i++) constants[i] = hl_test_root(primes[i], 3);
    for (int i = 0; i < 8; i++) state[i] = hl_test_root(primes[i], 2);
    size_t len = head.len + tail.len, padded = (len + 9 + 63) / 64 * 64;
    for (size_t start = 0; start < padded; start += 64) {
        uint8_t block[64];
        for (size_t i = 0; i < 64; i++) {
            size_t at = start + i;
            block[i] = at < head.len ? (uint8_t)head.at[at]
                       : at < len    ? (uint8_t)tail.at[at - head.len]
                       : at == len   ? 0x80
                       : at < padded - 8 ? 0
                                         : (uint8_t)((uint64_t)len * 8 >> 8 * (padded - 1 - at));
        }
        hl_test_block(state, constants, block);
    }
    for (int i = 0; i < 32; i++) sum[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

static void hl_test_hmac_sha256(hl_str key, hl_str text, uint8_t out[32]) {
    uint8_t own[64] = {0}, inner[64], outer[64], sum[32];
    if (key.len > 64) hl_test_sha256(key, HL(""), own);
    else if (key.len) memcpy(own, key.at, key.len);
    for (int i = 0; i < 64; i++) inner[i] = own[i] ^ 0x36, outer[i] = own[i] ^ 0x5c;
    hl_test_sha256((hl_str){(const char *)inner, 64}, text, sum);
    hl_test_sha256((hl_str){(const char *)outer, 64}, (hl_str){(const char *)sum, 32}, out);
}

#endif
