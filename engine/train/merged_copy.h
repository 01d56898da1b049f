/* Copying the parts of a diffusers folder: a folder of folders of files. Internal to train/. */
#ifndef DRAFT_TRAIN_MERGED_COPY_H
#define DRAFT_TRAIN_MERGED_COPY_H

#include "base/error.h"

bool draft_copy_file(const char *from, const char *to, struct draft_error *err);
/* The files of `from` and of its folders that `keep` wants (part: the folder's name, "" at the top), into the existing
 * folder `to`. Hidden files, and folders in folders, are left out; links are followed. */
bool draft_copy_parts(const char *from, const char *to, bool (*keep)(void *context, const char *part, const char *name),
                      void *context, struct draft_error *err);
/* Removes a folder of folders of files, as far as it is one. */
void draft_remove_parts(const char *folder);

#endif
