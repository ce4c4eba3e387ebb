/* SPDX-License-Identifier: GPL-2.0 */
/* Contents of blocks that depend on their position and on a seed. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stdint.h>
#include <string.h>

static inline uint64_t pattern_word(uint64_t pos, uint64_t seed)
{
	return pos * 0x9e3779b97f4a7c15ull ^ seed << 32;
}

static inline void fill(uint8_t *buf, size_t len, uint64_t pos, uint64_t seed)
{
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t v = pattern_word(pos + i, seed);

		memcpy(buf + i, &v, sizeof(v));
	}
}

/* Whether @buf has the contents that fill() writes. */
static inline int holds(const uint8_t *buf, size_t len, uint64_t pos, uint64_t seed)
{
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t v = pattern_word(pos + i, seed);

		if (memcmp(buf + i, &v, sizeof(v)))
			return 0;
	}
	return 1;
}

#endif
