/* What a job trains, and the frozen copy beside it. */
#ifndef DRAFT_TRAINING_H
#define DRAFT_TRAINING_H

#include "state.h"

/* The list of what is trained, its average and optimizer, and the frozen copy where the KL needs one. */
bool draft_engine_open_trained(struct draft_engine *engine, struct draft_error *err);
/* After a change of trained values: the backend's forms of them are of the old ones. */
void draft_engine_forget_packed(struct draft_engine *engine);
/* pipeline.base, opened if it is not there, with the job's base LoRAs; for jobs that train the UNet's own weights. */
bool draft_engine_open_base(struct draft_engine *engine, struct draft_error *err);
void draft_engine_close_base(struct draft_engine *engine);

#endif
