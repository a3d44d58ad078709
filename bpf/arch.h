/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What differs from one architecture to the next, one header each with the same names:
 *
 *   GENERAL_REGISTERS   how many a rule may name, by DWARF's numbers; a power of two
 *   CARRIED             the one that is followed up the stack where that is known
 *   SIGNAL_CARRIED      where it is in a signal frame, from sp on
 *   PEEKS               whether tables leave out what a leaf's code says (peek.h)
 *   RECORD_ENDS_FRAME   whether a frame ends right above its saved fp and return address
 *   ZERO_ENDS           whether an fp and a return address of 0 are a root
 *   RETURN_ADDRESS(w)   a return address as it was before it was signed
 *   is_call(bytes)      whether the 8 bytes before a return address end with a call
 *   struct NATIVE_REGISTERS, IS_USER, IS_NARROW, TAKE_REGISTERS: registers of the
 *                       interrupted code (kernel side only) */
#ifndef EVERFLAME_ARCH_H
#define EVERFLAME_ARCH_H

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#include "arch/arm64.h"
#else
#include "arch/x86_64.h"
#endif

#endif
