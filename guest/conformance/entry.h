/* Offsets in struct entry, for entry.S; support.c compares them. */
#ifndef ENTRY_H
#define ENTRY_H

#include "offsets.h"

#define E_ELR X(33)
#define E_SPSR X(34)
#define E_SP_EL0 X(35)
#define E_DAIF X(36)
#define E_SPSEL X(37)
#define E_EL X(38)
#define E_ROOM 320 /* struct entry, rounded up to 16 */

#endif
