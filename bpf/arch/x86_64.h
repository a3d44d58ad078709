/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* x86-64, see arch.h. */
#ifndef EVERFLAME_ARCH_X86_64_H
#define EVERFLAME_ARCH_X86_64_H

#define GENERAL_REGISTERS 16
#define CARRIED 3          /* rbx */
#define SIGNAL_CARRIED 128 /* in struct ucontext */
#define PEEKS 1
#define RECORD_ENDS_FRAME 1
#define ZERO_ENDS 0
#define RETURN_ADDRESS(word) (word)

/* b[8 - n] is the byte n before the return address */
static inline __attribute__((always_inline)) int is_call(const __u8 *b) {
    if (b[3] == 0xe8) /* call rel32 */
        return 1;
    if (b[6] == 0xff && (b[7] & 0xf8) == 0xd0) /* call reg, perhaps after a REX prefix */
        return 1;
    if (b[6] == 0xff && (b[7] & 0xf8) == 0x10 && b[7] != 0x14 && b[7] != 0x15) /* call [reg] */
        return 1;
    if (b[5] == 0xff && ((b[6] & 0xf8) == 0x50 || b[6] == 0x14)) /* call [reg+disp8], [sib] */
        return 1;
    if (b[4] == 0xff && b[5] == 0x54) /* call [sib+disp8] */
        return 1;
    if (b[2] == 0xff && (b[3] == 0x15 || (b[3] & 0xf8) == 0x90)) /* call [rip+disp32], [reg+disp32] */
        return 1;
    return b[1] == 0xff && b[2] == 0x94; /* call [sib+disp32] */
}

#define NATIVE_REGISTERS pt_regs
#define NATIVE_REGISTERS_SIZE sizeof(struct pt_regs) /* on top of a kernel stack */
#define IS_USER(regs) (((regs)->cs & 3) == 3)
#define IS_NARROW(regs) (((regs)->cs & 0xff) == 0x23) /* the code segment of a 32-bit program */
#define TAKE_REGISTERS(at, regs)                                                                                       \
    do {                                                                                                               \
        (at)->pc = (regs)->rip;                                                                                        \
        (at)->sp = (at)->general[7] = (regs)->rsp;                                                                     \
        (at)->fp = (at)->general[6] = (regs)->rbp;                                                                     \
        (at)->lr = 0;                                                                                                  \
        (at)->general[0] = (regs)->rax;                                                                                \
        (at)->general[1] = (regs)->rdx;                                                                                \
        (at)->general[2] = (regs)->rcx;                                                                                \
        (at)->general[3] = (regs)->rbx;                                                                                \
        (at)->general[4] = (regs)->rsi;                                                                                \
        (at)->general[5] = (regs)->rdi;                                                                                \
        (at)->general[8] = (regs)->r8;                                                                                 \
        (at)->general[9] = (regs)->r9;                                                                                 \
        (at)->general[10] = (regs)->r10;                                                                               \
        (at)->general[11] = (regs)->r11;                                                                               \
        (at)->general[12] = (regs)->r12;                                                                               \
        (at)->general[13] = (regs)->r13;                                                                               \
        (at)->general[14] = (regs)->r14;                                                                               \
        (at)->general[15] = (regs)->r15;                                                                               \
    } while (0)

#endif
