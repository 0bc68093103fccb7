// What memory.h has instead of a WebAssembly memory where a test is compiled for the machine: a large array, in which an
// address is its distance from the start, as the host's are from the start of memory.

#ifndef HOOKLINE_NATIVE_H
#define HOOKLINE_NATIVE_H

#include <stdlib.h>
#include <string.h>

#define HL_EXPORT(name)

enum { HL_NATIVE_MEMORY = 64 << 20 };
static _Alignas(16) char hl_native_memory[HL_NATIVE_MEMORY];

// 0 is no address.
static inline uintptr_t hl_heap(void) { return (uintptr_t)hl_native_memory + 16; }
static inline bool hl_reach(uint64_t end) { return end <= (uintptr_t)hl_native_memory + HL_NATIVE_MEMORY; }
static inline uint32_t hl_place(const void *at) { return at ? (uint32_t)((const char *)at - hl_native_memory) : 0; }
static inline void *hl_at(uint32_t place) { return hl_native_memory + place; }

_Noreturn void hl_trap(void);

#endif
