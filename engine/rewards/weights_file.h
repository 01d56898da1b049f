/* Which of the names under which a reward's weights are shared a folder has. Internal to rewards/. */
#ifndef DRAFT_REWARDS_WEIGHTS_FILE_H
#define DRAFT_REWARDS_WEIGHTS_FILE_H

#include "base/error.h"

/* The first of `stems` (NULL-terminated) with safetensors in `folder`. When there is none: NULL, and a refusal that
 * tells how to convert the pickle of such a name, or which files would do. */
const char *draft_reward_weights_stem(const char *kind, const char *folder, const char *const *stems,
                                      struct draft_error *err);

#endif
