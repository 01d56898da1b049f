/* The manual page draft(1), in roff, from the tables of the commands. */
#ifndef DRAFT_CLIENT_MANUAL_H
#define DRAFT_CLIENT_MANUAL_H

#include <stdio.h>

void draft_print_manual(FILE *out);

#endif
