/* SPDX-License-Identifier: Apache-2.0 */
/* What monitor.S and monitor.c share: the per-CPU block, the image's configuration words. */
#ifndef QEMU_SDEI_MONITOR_H
#define QEMU_SDEI_MONITOR_H

#include "layout.h"
#include "virt.h"

/* Secure Group 0 SGI that carries a kick from the CPU that takes the UART's interrupt to the one that is meant. */
#define KICK_SGI 8

/* Offsets in the per-CPU block. It lies at the top of the CPU's W_MONITOR_SIZE bytes of the
 * window, with the stack below: SP_EL3 points to it whenever the guest runs. */
#define PCPU_BLOCK 0x80
#define P_FRAME 0x00    /* address of this CPU's frame */
#define P_SEQ_ADDR 0x08 /* address of its SEQ word */
#define P_POLL_ADDR 0x10
#define P_SEQ 0x18    /* survives a reset, which clears no RAM */
#define P_X30 0x20    /* the guest's x30 while x30 holds the frame's address */
#define P_FIXUP 0x28  /* where to go on when a micro-operation aborts, or FIXUP_SKIP; 0 elsewhere */
#define FIXUP_SKIP 1  /* an undefined instruction is skipped: a system register that the CPU does not have */
#define P_INDEX 0x30
#define P_KICKED 0x38 /* last KICK count seen for this CPU; written by CPU 0 only */
#define P_SELF 0x40   /* a kick for this CPU waits to be posted */
#define P_INTID 0x48  /* an interrupt of the host's waits to be posted; 0: none (INTID 0 is an SGI of the guest's) */

#define P_READY 0x50  /* address of this CPU's table of ready answers */
#define P_SPARE 0x60  /* x3 to x6 of the guest while that is looked at */

/* Image header, patched per guest by qemu_sdei.monitor.image. */
#define IMAGE_MAGIC 0x334e4f4d49454453 /* "SDEIMON3"; SDEIMON2 did not say its W_VERSION */

/* What answer() tells monitor.S to do. */
#define DO_RESUME 0
#define DO_RESUME_ALL 1
#define DO_POST 2

#endif
