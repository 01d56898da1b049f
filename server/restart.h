/* What a start finds and puts in order: jobs that were running, previews that were not done, files that nothing names.
 */
#ifndef DRAFTD_RESTART_H
#define DRAFTD_RESTART_H

#include "state.h"

bool draftd_restart(struct draftd *d, struct draft_error *err);

#endif
