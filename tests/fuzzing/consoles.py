"""What kernels say, in the form in which arm64 says it."""

from __future__ import annotations

LOGGED = """\
[   31.201000] {1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 0
[   31.201100] {1}[Hardware Error]: event severity: recoverable
[   31.201200] {1}[Hardware Error]:   section_type: ARM processor error
"""
WARNED = """\
[   31.300000] ------------[ cut here ]------------
[   31.300100] WARNING: CPU: 1 PID: 17 at lib/frobnicate.c:214 frobnicate+0x1c/0x80
[   31.300200] Modules linked in:
[   31.300300] CPU: 1 PID: 17 Comm: kworker/1:0 Not tainted 6.12.0-test #1  Hypothetical 6.12.1-1
[   31.300400] Workqueue: events frob_work.constprop.0
[   31.300500] pstate: 60400005 (nZCv daif +PAN -UAO -TCO -DIT -SSBS BTYPE=--)
[   31.300600] pc : frobnicate+0x1c/0x80
[   31.300700] lr : frobnicate+0x18/0x80
[   31.300800] Call trace:
[   31.300900]  frobnicate+0x1c/0x80
[   31.301000]  frob_work.constprop.0+0x48/0x90 [frob]
[   31.301100]  process_one_work+0x178/0x3d8
[   31.301200]  worker_thread+0x208/0x418
[   31.301300]  kthread+0xe8/0xf8
[   31.301400]  ret_from_fork+0x10/0x20
[   31.301500] ---[ end trace 0000000000000000 ]---
"""
OOPS = """\
[   40.000000] Unable to handle kernel paging request at virtual address ffff80008123f000
[   40.000100] Mem abort info:
[   40.000200]   ESR = 0x0000000096000007
[   40.000300] Internal error: Oops: 0000000096000007 [#1] SMP
[   40.000400] Modules linked in:
[   40.000500] CPU: 0 UID: 0 PID: 0 Comm: swapper/0 Tainted: G   M                6.12.0-test #1
[   40.000600] pc : print_things+0x64/0x2a0
[   40.000700] lr : print_things+0x58/0x2a0
[   40.000800] Call trace:
[   40.000900]  print_things+0x64/0x2a0 (P)
[   40.001000]  print_section+0x1c4/0x5e0 (L)
[   40.001100]  irq_work_run+0x28/0x50
[   40.001200]  el1_interrupt+0x38/0x68
[   40.001300]  el1h_64_irq_handler+0x18/0x28
[   40.001400]  el1h_64_irq+0x6c/0x70
[   40.001500]  default_idle_call+0x30/0x150
[   40.001600]  do_idle+0x200/0x270
[   40.001700] Code: 91400000 d503201f 38606800 (38606820)
[   40.001800] ---[ end trace 0000000000000000 ]---
"""
DIED = (
    OOPS
    + """\
[   40.001900] Kernel panic - not syncing: Oops: Fatal exception in interrupt
[   40.002000] SMP: stopping secondary CPUs
[   40.002100] Kernel Offset: 0x2d1f00000 from 0xffff800080000000
[   40.002200] ---[ end Kernel panic - not syncing: Oops: Fatal exception in interrupt ]---
"""
)
ASKED = """\
[   50.000000] {1}[Hardware Error]: event severity: fatal
[   50.000100] Kernel panic - not syncing: GHES: Fatal hardware error
[   50.000200] CPU: 1 PID: 0 Comm: swapper/1 Not tainted 6.1.0-test #1
[   50.000300] Call trace:
[   50.000400]  dump_backtrace+0xe0/0x130
[   50.000500]  show_stack+0x20/0x30
[   50.000600]  dump_stack+0x18/0x34
[   50.000700]  panic+0x190/0x360
[   50.000800]  __ghes_panic+0x74/0x78
[   50.000900]  ghes_in_nmi_queue_one_entry.isra.0+0x1f8/0x200
[   50.001000]  ghes_sdei_normal_callback+0x28/0x48
[   50.001100]  sdei_event_handler+0x30/0xc8
[   50.001200]  __sdei_handler+0xe0/0x1a8
[   50.001300]  __sdei_asm_handler+0xbc/0x134
[   50.001400]  cpu_do_idle+0x14/0x30
[   50.001500] ---[ end Kernel panic - not syncing: GHES: Fatal hardware error ]---
"""
INIT = """\
[   60.000000] Memory failure: 0x41e78: recovery action for dirty LRU page: Recovered
[   60.100000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000007
[   60.200000] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000007 ]---
"""
LOCKUP = """\
[   70.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [kworker/1:2:88]
[   70.000100] Modules linked in:
[   70.000200] pc : go_through_sections+0x40/0x90
[   70.000300] Call trace:
[   70.000400]  go_through_sections+0x40/0x90
[   70.000500]  handle_errors+0x100/0x300
[   70.000600]  ret_from_fork+0x10/0x20
"""
STALL = """\
[   80.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
[   80.000100] rcu: \t1-...!: (1 GPs behind) idle=26b4/1/0x4000000000000000 softirq=1/2 fqs=0
"""
KASAN = """\
[   90.000000] ==================================================================
[   90.000100] BUG: KASAN: slab-out-of-bounds in print_things+0x1b4/0x2a0
[   90.000200] Read of size 4 at addr ffff0000c1d5a0c8 by task swapper/0/0
[   90.000300] Call trace:
[   90.000400]  dump_backtrace+0xe0/0x130
[   90.000500]  show_stack+0x20/0x30
[   90.000600]  dump_stack_lvl+0x68/0x84
[   90.000700]  print_report+0x170/0x490
[   90.000800]  kasan_report+0xbc/0x108
[   90.000900]  print_things+0x1b4/0x2a0
[   90.001000]  print_section+0x1c4/0x5e0
[   90.001100]  ret_from_fork+0x10/0x20
"""
