/* QEMU's `virt,gic-version=3`: where its devices are, and the GIC's registers that are used here. For C and assembly. */
#ifndef VIRT_H
#define VIRT_H

#ifdef __ASSEMBLER__
#define ADDRESS(n) n
#else
#define ADDRESS(n) n##ul
#endif

#define SECURE_FLASH_END ADDRESS(0x04000000) /* it begins at 0; secure=on */
#define GICD ADDRESS(0x08000000)
#define GICR_BASE ADDRESS(0x080a0000)
#define GICR_STRIDE 0x20000
#define GICR_SGI_FRAME 0x10000
#define GICR_FIRST_REGION 123 /* redistributors in the low region; the rest lie above the RAM */
#define UART ADDRESS(0x09000000)
#define RTC ADDRESS(0x09010000)
#define SECURE_UART ADDRESS(0x09040000)

/* The frames of a CPU's redistributor, of the first region. */
#define GICR(cpu) (GICR_BASE + (cpu) * ADDRESS(0x20000))
#define GICR_SGI(cpu) (GICR(cpu) + GICR_SGI_FRAME)

/* Registers of the distributor, and of a redistributor's frame of SGIs and PPIs (GICv3, IHI0069 12.9 and 12.11). */
#define GIC_IGROUPR 0x80
#define GIC_ISENABLER 0x100
#define GIC_ICENABLER 0x180
#define GIC_ISPENDR 0x200
#define GIC_ICPENDR 0x280
#define GIC_IPRIORITYR 0x400
#define GIC_ICFGR 0xc00
#define GIC_IGRPMODR 0xd00
#define GIC_IROUTER 0x6000

/* INTIDs */
#define TIMER_INTID 27 /* the virtual timer's PPI */
#define RTC_INTID 34
#define SECURE_UART_INTID 40
#define SPURIOUS 1020 /* and above: there is none */

#endif
