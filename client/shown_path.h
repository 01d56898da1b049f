/* How files and our own programs are named to the user, so that what is printed can be pasted into the same shell. */
#ifndef DRAFT_CLIENT_SHOWN_PATH_H
#define DRAFT_CLIENT_SHOWN_PATH_H

#include <stddef.h>

/* An absolute path, relative to the current folder when it lies in it. Writes into out[size] and returns it. */
char *draft_shown_path(const char *path, char *out, size_t size);

/* "draftd" or "draft": the bare name when $PATH finds the one beside this program, else its path. */
char *draft_shown_program(const char *name, char *out, size_t size);

#endif
