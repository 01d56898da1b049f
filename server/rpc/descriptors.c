#include "rpc/descriptors.h"

__asm__(".section .rodata\n"
        ".global draftd_descriptors, draftd_descriptors_end\n"
        "draftd_descriptors:\n"
        ".incbin \"" DRAFTD_DESCRIPTOR_SET "\"\n"
        "draftd_descriptors_end:\n"
        ".byte 0\n"
        ".previous\n");
