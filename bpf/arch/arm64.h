/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* 64-bit ARM, see arch.h. A call leaves its return address in x30, which a function stores
 * where it likes, as a rule beside x29: the pair is a frame record, at which x29 points. */
#ifndef EVERFLAME_ARCH_ARM64_H
#define EVERFLAME_ARCH_ARM64_H

#define GENERAL_REGISTERS 32 /* x0 .. x30, sp */
#define CARRIED 30           /* x30 */
#define SIGNAL_CARRIED 552   /* siginfo, then struct ucontext with its struct sigcontext */
#define PEEKS 0
#define RECORD_ENDS_FRAME 0
#define ZERO_ENDS 1          /* as the procedure call standard has it */
/* Pointer authentication signs in the bits that no address has. */
#define RETURN_ADDRESS(word) ((word) & address_mask())

static inline __attribute__((always_inline)) int is_call(const __u8 *b) {
    __u32 code = b[4] | b[5] << 8 | b[6] << 16 | (__u32)b[7] << 24;
    return code >> 26 == 0x25 || (code & 0xfefff000) == 0xd63f0000; /* bl; blr, blraa, blrab */
}

#define NATIVE_REGISTERS user_pt_regs
#define NATIVE_REGISTERS_SIZE bpf_core_type_size(struct pt_regs)
#define IS_USER(regs) (((regs)->pstate & 0xf) == 0)   /* exception level 0 */
#define IS_NARROW(regs) (((regs)->pstate & 0x10) != 0) /* 32-bit state */
#define TAKE_REGISTERS(at, from)                                                                                       \
    do {                                                                                                               \
        (at)->pc = (from)->pc;                                                                                         \
        (at)->sp = (at)->general[31] = (from)->sp;                                                                     \
        _Pragma("unroll") for (int n = 0; n < 31; n++)(at)->general[n] = (from)->regs[n];                              \
        (at)->fp = (from)->regs[29];                                                                                   \
        (at)->lr = (from)->regs[30];                                                                                   \
    } while (0)

#endif
